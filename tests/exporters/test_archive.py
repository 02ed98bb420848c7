from __future__ import annotations

import os
import shutil
import subprocess
import tarfile

import pytest

from robust_edge_exporters.archive import archive_path, write_archive
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import InputError


def test_the_same_bundle_gives_the_same_bytes_whoever_copied_it_when(exported, tmp_path):
    first, second = tmp_path / "a" / "bundle", tmp_path / "b" / "bundle"
    shutil.copytree(exported, first)
    second.mkdir(parents=True)
    for path in sorted(exported.iterdir(), reverse=True):
        shutil.copyfile(path, second / path.name)
        os.utime(second / path.name, (1, 1))
        (second / path.name).chmod(0o600)
    for bundle in (first, second):
        write_archive(bundle, bundle.parent / "bundle.tar")
    assert (tmp_path / "a/bundle.tar").read_bytes() == (tmp_path / "b/bundle.tar").read_bytes()


def test_it_unpacks_to_a_bundle_that_opens(exported, tmp_path):
    path = archive_path(tmp_path / exported.name, overwrite=False)
    write_archive(exported, path)
    (tmp_path / "there").mkdir()
    subprocess.run(["tar", "-xf", str(path), "-C", str(tmp_path / "there")], check=True)
    assert open_bundle(tmp_path / "there" / exported.name).manifest == open_bundle(exported).manifest
    with tarfile.open(path) as archive:
        for entry in archive:
            assert (entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname) == (0, 0, 0, "", "")
            assert entry.mode == (0o755 if entry.name.endswith(".py") else 0o644)


def test_an_older_archive_is_kept(tmp_path):
    (tmp_path / "b.tar").write_bytes(b"old")
    with pytest.raises(InputError, match="pass `overwrite`"):
        archive_path(tmp_path / "b", overwrite=False)
    assert archive_path(tmp_path / "b", overwrite=True) == tmp_path / "b.tar"
    (tmp_path / "c.tar").mkdir()
    with pytest.raises(InputError, match="exists"):
        archive_path(tmp_path / "c", overwrite=True)
