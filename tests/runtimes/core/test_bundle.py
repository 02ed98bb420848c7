from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from robust_edge_runtimes.core import bundle as bundles
from robust_edge_runtimes.core.bundle import open_bundle, private_bundle, refuse_unlisted, seal, sums_text
from robust_edge_runtimes.core.errors import BundleError, InputError
from robust_edge_runtimes.core.files import locked_folder
from robust_edge_runtimes.core.folders import SCRATCH
from robust_edge_runtimes.formats.onnx.format import OnnxFormat
from robust_edge_runtimes.load import load
from tests.commands import forked


def test_what_was_sealed_opens(bundle, opened):
    again = open_bundle(str(bundle))
    assert again.manifest == opened.manifest
    assert again.artifact_path == bundle / "model.onnx"


def test_the_file_table_holds_true_hashes_and_sizes(bundle, opened):
    on_disk = {path.name for path in bundle.iterdir()} - {"manifest.json", "SHA256SUMS"}
    assert set(opened.manifest.files) == on_disk
    for name, entry in opened.manifest.files.items():
        data = (bundle / name).read_bytes()
        assert (entry.sha256, entry.bytes) == (hashlib.sha256(data).hexdigest(), len(data))
    assert opened.manifest.artifact.sha256 == opened.manifest.files["model.onnx"].sha256


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this system")
def test_sha256sum_accepts_the_sums(bundle):
    done = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=bundle, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK") == len(list(bundle.iterdir())) - 1


def test_sums_list_every_file_but_themselves(bundle, opened):
    names = [line.split("  ")[1] for line in sums_text(bundle, opened.manifest).splitlines()]
    assert names == sorted({path.name for path in bundle.iterdir()} - {"SHA256SUMS"})


def test_sealing_twice_changes_nothing(bundle, opened):
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    assert seal(bundle, opened.manifest) == opened.manifest
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_files_in_folders_are_sealed_and_opened(bundle, opened):
    (bundle / "a" / "b").mkdir(parents=True)
    (bundle / "a" / "b" / "extra.bin").write_bytes(b"x")
    seal(bundle, opened.manifest)
    assert "a/b/extra.bin" in open_bundle(bundle).manifest.files


def test_a_link_to_the_whole_folder_is_fine(bundle, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(bundle)
    assert open_bundle(link).golden().labels.size


def test_what_is_no_bundle_is_said_to_be_none(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("{}")
    for path in (tmp_path / "absent", tmp_path / "empty", tmp_path / "file"):
        with pytest.raises(BundleError, match="a bundle is what `robust-edge export` writes"):
            open_bundle(path)


def test_a_bundle_without_golden_images_is_refused(bundle, forge):
    (bundle / "golden.npz").unlink()
    forge(bundle, lambda value: value["files"].pop("golden.npz"))
    with pytest.raises(BundleError, match=r"does not list golden\.npz"):
        open_bundle(bundle)


@pytest.mark.parametrize(
    "text",
    ["", "\n", "0" * 64 + "  model.onnx\n", None],
    ids=["empty", "blank", "one line", "other order"],
)
def test_sums_that_say_something_else_are_refused(bundle, text):
    path = bundle / "SHA256SUMS"
    path.write_text("".join(reversed(path.read_text().splitlines(True))) if text is None else text)
    with pytest.raises(BundleError, match="SHA256SUMS does not agree"):
        open_bundle(bundle)


def test_the_manifest_on_disk_is_plain_json(bundle, opened):
    assert json.loads((bundle / "manifest.json").read_text()) == json.loads(json.dumps(opened.manifest.to_json()))


def test_a_private_copy_does_not_change_with_the_bundle(bundle):
    """Bytes that are written through a mapping change no time of the file on some file systems."""
    honest = (bundle / "model.onnx").read_bytes()
    file = (bundle / "model.onnx").open("r+b")
    with file, mmap.mmap(file.fileno(), 0) as mapped, private_bundle(bundle) as opened:
        mapped[:] = bytes(len(mapped))
        assert opened.artifact_path.read_bytes() == honest
        assert opened.path.parent.stat().st_mode & 0o077 == 0
        assert open_bundle(opened.path) == opened
    assert (bundle / "model.onnx").read_bytes() != honest
    assert not opened.path.exists()


def test_what_changes_while_it_is_copied_is_refused(bundle, monkeypatch):
    """The error names the bundle that was given, not the copy."""
    monkeypatch.setattr(bundles.shutil, "copyfile", lambda source, target, **_: Path(target).write_bytes(b"{}"))
    with pytest.raises(BundleError, match=f"^{bundle}/manifest.json"), private_bundle(bundle):
        pass


def test_a_private_copy_holds_the_names_of_unlisted_files(bundle):
    (bundle / "added").write_text("much")
    (bundle / "empty").mkdir()
    (bundle / "link").symlink_to("/")
    os.mkfifo(bundle / "pipe")
    with private_bundle(bundle) as opened:
        names = sorted(path.relative_to(opened.path) for path in opened.path.rglob("*"))
        assert names == sorted(path.relative_to(bundle) for path in bundle.rglob("*"))
        assert (opened.path / "link").is_symlink()
        assert not (opened.path / "added").read_bytes()
        assert not (opened.path / "pipe").read_bytes()


@pytest.mark.parametrize(
    ("replace", "words"),
    [
        (lambda path: os.truncate(path, 1 << 30), "SHA256SUMS does not agree"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "SHA256SUMS is missing"),
    ],
    ids=["large", "pipe"],
)
def test_sums_of_another_kind_or_size_are_not_copied(replace, words, bundle, monkeypatch):
    replace(bundle / "SHA256SUMS")
    monkeypatch.setattr(bundles, "_copy", lambda *_: pytest.fail("it was copied"))
    with pytest.raises(BundleError, match=words), private_bundle(bundle):
        pass


def test_a_bundle_that_the_disk_of_temporary_files_cannot_hold(bundle, opened, monkeypatch):
    """Every file counts, also those that the manifest does not list."""
    for free in (100, sum(entry.bytes for entry in opened.manifest.files.values())):
        monkeypatch.setattr(bundles.shutil, "disk_usage", lambda _, free=free: SimpleNamespace(free=free))
        with pytest.raises(InputError, match=f"{free} are free; set TMPDIR"), private_bundle(bundle):
            pass


def test_a_disk_that_is_full_before_the_copy_is_whole(bundle, monkeypatch):
    def full(_, target, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)

    monkeypatch.setattr(bundles.shutil, "copyfile", full)
    with pytest.raises(InputError, match=r"No space left .* set TMPDIR"), private_bundle(bundle):
        pass


@pytest.mark.parametrize("inside", [".", "a/b"])
def test_a_folder_of_temporary_files_in_the_bundle(inside, bundle, tmp_path, monkeypatch):
    """The copy would be copied, and its copy, until the name is too long."""
    (bundle / inside).mkdir(parents=True, exist_ok=True)
    (tmp_path / "link").symlink_to(bundle / inside)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "link"))
    with pytest.raises(InputError, match="set TMPDIR") as error, private_bundle(bundle):
        pass
    assert len(str(error.value)) < len(str(bundle)) + 150


def test_a_copy_that_a_killed_command_left_is_removed_by_the_next_one(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def killed():
        with private_bundle(bundle):
            os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(forked(killed, errors=tmp_path / "errors"), 0)
    assert list(tmp_path.glob(".*/bundle/manifest.json"))
    locked_folder(tmp_path, SCRATCH)
    assert not list(tmp_path.glob(".*/bundle"))


@pytest.mark.parametrize("name", ["more.h", "a/more.h", "link"])
def test_a_source_is_not_compiled_beside_files_that_are_not_listed(name, bundle, tmp_path, monkeypatch):
    """It could include them, and they are empty in the copy that is verified."""
    pytest.importorskip("onnxruntime", reason="the bundle is opened by onnxruntime")
    refuse_unlisted(open_bundle(bundle))
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).symlink_to(tmp_path) if name == "link" else (bundle / name).write_text("x")
    load(bundle, from_source=True).close()  # of this format nothing is compiled
    monkeypatch.setattr(OnnxFormat, "code_files", ("model.c",))
    with pytest.raises(BundleError, match=f"holds '{name}', which manifest.json does not list"):
        load(bundle, from_source=True)


def test_a_link_that_leads_elsewhere_later_changes_nothing(bundle, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(bundle)
    opened = open_bundle(link)
    link.unlink()
    link.symlink_to(tmp_path / "nowhere")
    assert opened.golden().labels.size
    assert opened.path == bundle.resolve()


@pytest.mark.parametrize("name", ["a b", "two\nlines", os.fsdecode(b"\xff\xfe"), "-o", "%s {0} *"])
def test_names_of_folders(name, bundle, monkeypatch):
    """Relative, as given; none is printed in a way that breaks the line."""
    renamed = bundle.rename(bundle.with_name(name))
    monkeypatch.chdir(renamed.parent)
    opened = open_bundle(name)
    assert str(opened.path) == name
    with private_bundle(name) as copied:
        assert copied.manifest == opened.manifest
    with opened.artifact_path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError):
        open_bundle(name)
