from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.folders import check_new_directory, new_directory


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


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
    with pytest.raises(InputError, match="pass `overwrite`"), new_directory(out):
        pytest.fail("entered")
    assert (out / "f").read_text() == "first"
    with new_directory(out, overwrite=True) as folder:
        (folder / "g").write_text("second")
    assert listing(out) == ["g"]
    assert listing(tmp_path) == ["out"]


def test_what_appears_in_its_place_meanwhile_is_not_deleted(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "f").write_text("mine")
    with pytest.raises(InputError, match="exists"), new_directory(tmp_path / "out"):
        (tmp_path / "mine").rename(tmp_path / "out")
    assert (tmp_path / "out" / "f").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_is_never_replaced_by_a_folder(tmp_path, overwrite):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="is a file"), new_directory(tmp_path / "out", overwrite=overwrite):
        pytest.fail("entered")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("below", ["out", "deep/er/out"])
def test_a_place_where_no_folder_can_be_made_is_refused_before_the_work(tmp_path, monkeypatch, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file, which is a file; choose another path"):
        check_new_directory(tmp_path / "file" / below, overwrite=False)
    check_new_directory(tmp_path / below, overwrite=False)
    monkeypatch.setattr(os, "access", lambda path, mode: path != str(tmp_path))  # root may write anywhere
    with pytest.raises(InputError, match="is not writable; choose another path"):
        check_new_directory(tmp_path / below, overwrite=False)


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
