from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from robust_edge_runtimes.core.files import sha256_of, write_atomic, write_json
from robust_edge_runtimes.core.folders import new_directory


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256_of_files_around_the_block_size(tmp_path, size):
    data = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "f").write_bytes(data[:size])
    assert sha256_of(tmp_path / "f") == hashlib.sha256(data[:size]).hexdigest()


def test_write_atomic_writes_text_and_bytes_and_leaves_nothing_else(tmp_path):
    write_atomic(tmp_path / "f", "ε\n")
    assert (tmp_path / "f").read_bytes() == "ε\n".encode()
    write_atomic(tmp_path / "f", b"\x00new")
    assert (tmp_path / "f").read_bytes() == b"\x00new"
    assert listing(tmp_path) == ["f"]


@pytest.mark.parametrize("stage", ["fsync", "rename"])
@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, stage, error):
    def fail(*_):
        raise error(errno.ENOSPC, "No space left on device")

    (tmp_path / "f").write_text("old")
    monkeypatch.setattr(*((os, "fsync", fail) if stage == "fsync" else (Path, "replace", fail)))
    with pytest.raises(error):
        write_atomic(tmp_path / "f", "new")
    assert (tmp_path / "f").read_text() == "old"
    assert listing(tmp_path) == ["f"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_really_full_device_is_an_oserror(tmp_path, monkeypatch):
    import tempfile

    def on_full_device(*, dir, prefix, suffix):
        name = Path(dir) / f"{prefix}x{suffix}"
        name.touch()
        return os.open("/dev/full", os.O_WRONLY), str(name)

    monkeypatch.setattr(tempfile, "mkstemp", on_full_device)
    with pytest.raises(OSError) as caught:
        write_atomic(tmp_path / "f", "new")
    assert caught.value.errno == errno.ENOSPC
    assert listing(tmp_path) == []


def test_written_files_have_the_mode_that_open_would_give(tmp_path):
    (tmp_path / "plain").write_text("")
    write_atomic(tmp_path / "atomic", "")
    with new_directory(tmp_path / "folder"):
        pass
    (tmp_path / "mkdir").mkdir()
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode
    assert (tmp_path / "folder").stat().st_mode == (tmp_path / "mkdir").stat().st_mode


@pytest.mark.parametrize("value", [float("nan"), [float("inf")]])
def test_json_that_others_cannot_read_is_not_written(tmp_path, value):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "f.json", {"value": value})
    assert listing(tmp_path) == []
