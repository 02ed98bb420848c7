"""Bundles that point outside themselves. Nothing outside is opened, whatever the hashes say."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import BundleError

SECRET = b"outside"
ENTRY = {"sha256": hashlib.sha256(SECRET).hexdigest(), "bytes": len(SECRET)}


def refused(watch, bundle, match):
    root = os.path.realpath(bundle)
    with watch() as seen, pytest.raises(BundleError, match=match):
        open_bundle(bundle)
    assert seen == [path for path in seen if path == root or path.startswith(root + os.sep)]


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "../../../../../../../../etc/passwd",
        "/etc/passwd",
        "//etc/passwd",
        "a/../../secret",
        "a/..",
        "..",
        ".",
        "./labels.txt",
        "a/./b",
        "a//b",
        "a/",
        "",
        "~/secret",
        "~root",
        "..\\secret",
        "C:\\secret",
        "C:secret",
        "\\\\host\\share",
        "file:///etc/passwd",
        "labels.txt\0",
        "labels.txt\n",
        "\nlabels.txt",
        " labels.txt",
        "labels.txt ",
        ".hidden",
        "-rf",
        "a/-rf",
        "l\u0430bels.txt",
        "labels.txt\u2028",
        "$HOME/secret",
        "`id`",
    ],
)
@pytest.mark.parametrize("place", ["files", "artifact"])
def test_only_plain_paths_inside_are_names(bundle, forge, watch, tmp_path, name, place):
    (tmp_path / "secret").write_bytes(SECRET)

    def edit(value):
        value["files"][name] = dict(ENTRY)
        if place == "artifact":
            value["artifact"].update(file=name, **ENTRY)

    forge(bundle, edit)
    refused(watch, bundle, "not a plain path inside the bundle")


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3000 + "b", "a" * 10**6])
def test_names_no_file_system_takes_are_refused_in_a_short_line(bundle, forge, name):
    forge(bundle, lambda value: value["files"].update({name: dict(ENTRY)}))
    with pytest.raises(BundleError, match="letters; at most") as caught:
        open_bundle(bundle)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "golden.npz", "labels.txt", "SHA256SUMS"])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_in_a_files_place_is_refused_although_its_content_is_right(bundle, tmp_path, watch, name, absolute):
    outside = tmp_path / "secret"
    shutil.move(bundle / name, outside)
    (bundle / name).symlink_to(outside if absolute else Path("..") / "secret")
    match = "is missing" if name == "SHA256SUMS" else "is a symbolic link"
    refused(watch, bundle, match)


def test_a_link_to_a_file_inside_is_refused_too(bundle, forge):
    (bundle / "copy.txt").symlink_to("labels.txt")
    data = (bundle / "labels.txt").read_bytes()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    forge(bundle, lambda value: value["files"].update({"copy.txt": entry}))
    with pytest.raises(BundleError, match="is a symbolic link"):
        open_bundle(bundle)


@pytest.mark.parametrize("depth", ["", "deep/", "deep/er/"])
def test_a_linked_folder_on_the_way_is_refused(bundle, forge, watch, tmp_path, depth):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_bytes(SECRET)
    (bundle / depth).mkdir(parents=True, exist_ok=True)
    (bundle / f"{depth}out").symlink_to(tmp_path / "elsewhere")
    forge(bundle, lambda value: value["files"].update({f"{depth}out/secret": dict(ENTRY)}))
    refused(watch, bundle, "is a symbolic link")


def test_dangling_and_circular_links_are_refused(bundle):
    path = bundle / "labels.txt"
    for target in ("nowhere", "labels.txt"):
        path.unlink()
        path.symlink_to(target)
        with pytest.raises(BundleError):
            open_bundle(bundle)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero on this system")
@pytest.mark.parametrize("name", ["manifest.json", "golden.npz", "SHA256SUMS"])
def test_a_link_to_an_endless_file_is_not_read(bundle, name):
    (bundle / name).unlink()
    (bundle / name).symlink_to("/dev/zero")
    with pytest.raises(BundleError):
        open_bundle(bundle)


def test_the_watch_fixture_sees_opened_files(bundle, tmp_path, watch):
    """The tests above can only fail if an opened file is noticed, through a link as well."""
    (tmp_path / "secret").write_bytes(SECRET)
    (bundle / "link").symlink_to(tmp_path / "secret")
    with watch() as seen:
        (bundle / "link").read_bytes()
    assert seen == [os.path.realpath(tmp_path / "secret")]
