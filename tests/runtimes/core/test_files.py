from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import new_directory, refuse_existing, sha256_of, write_atomic, write_json


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


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


def test_a_new_directory_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "deep" / "er" / "out"
    with new_directory(target) as folder:
        (folder / "f").write_text("x")
        assert not target.exists()
    assert listing(target) == ["f"]
    assert listing(target.parent) == ["out"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raises_leaves_nothing(tmp_path, error):
    def fill():
        with new_directory(tmp_path / "out") as folder:
            (folder / "f").write_text("x")
            raise error

    with pytest.raises(error):
        fill()
    assert listing(tmp_path) == []


def test_an_existing_folder_needs_overwrite_and_an_empty_one_does_not(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with new_directory(out) as folder:
        (folder / "f").write_text("first")
    with pytest.raises(InputError, match="pass --overwrite"), new_directory(out):
        pytest.fail("entered")
    assert (out / "f").read_text() == "first"
    with new_directory(out, overwrite=True) as folder:
        (folder / "g").write_text("second")
    assert listing(out) == ["g"]
    assert listing(tmp_path) == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_never_replaced_by_a_folder(tmp_path, overwrite):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="is a file"), new_directory(tmp_path / "out", overwrite=overwrite):
        pytest.fail("entered")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("below", ["out", "deep/er/out"])
def test_a_place_where_no_folder_can_be_made_is_refused_before_the_work(tmp_path, monkeypatch, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file, which is a file; choose another -o"):
        refuse_existing(tmp_path / "file" / below, overwrite=False)
    refuse_existing(tmp_path / below, overwrite=False)
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path))  # root may write anywhere
    with pytest.raises(InputError, match="cannot be written to; choose another -o"):
        refuse_existing(tmp_path / below, overwrite=False)


def old_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "f").write_text("old")
    return tmp_path / "out"


def test_overwrite_keeps_the_old_folder_when_the_block_raises(tmp_path):
    out = old_folder(tmp_path)

    def fill():
        with new_directory(out, overwrite=True) as folder:
            (folder / "f").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fill()
    assert (out / "f").read_text() == "old"
    assert listing(tmp_path) == ["out"]


@pytest.mark.parametrize("failing", [1, 2])
def test_overwrite_keeps_the_old_folder_when_a_rename_fails(tmp_path, monkeypatch, failing):
    out, rename, calls = old_folder(tmp_path), Path.replace, []

    def replace(self, target):
        calls.append(target)
        return full_disk() if len(calls) == failing else rename(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OSError, match="No space left"), new_directory(out, overwrite=True) as folder:
        (folder / "f").write_text("new")
    assert (out / "f").read_text() == "old"
    assert listing(tmp_path) == ["out"]
