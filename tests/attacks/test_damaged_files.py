"""Copies that went wrong: changed, cut, extended, missing. Every one is found before anything is used."""

from __future__ import annotations

import os

import numpy as np
import pytest

from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import BundleError

FILES = ("manifest.json", "model.onnx", "golden.npz", "labels.txt", "SHA256SUMS")


def test_these_are_all_the_files(sealed):
    assert sorted(path.name for path in sealed.iterdir()) == sorted(FILES)


def sampled(size, count=80):
    """Both ends, and places in between that are the same on every run."""
    inside = np.random.default_rng(size).integers(0, size, count)
    return sorted({0, 1, size // 2, size - 2, size - 1, *map(int, inside)} & set(range(size)))


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_found(bundle, name):
    path = bundle / name
    whole = path.read_bytes()
    for position in sampled(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        with pytest.raises(BundleError):
            open_bundle(bundle)
    path.write_bytes(whole)
    open_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_is_found(bundle, name):
    path = bundle / name
    whole = path.read_bytes()
    for length in sampled(len(whole), 30):
        path.write_bytes(whole[:length])
        with pytest.raises(BundleError):
            open_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("tail", [b"\0", b"\n", b" ", b"PK"])
def test_appended_bytes_are_found(bundle, name, tail):
    with (bundle / name).open("ab") as file:
        file.write(tail)
    with pytest.raises(BundleError):
        open_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found_and_named(bundle, name):
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=name):
        open_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_a_files_place_is_found(bundle, name):
    (bundle / name).unlink()
    (bundle / name).mkdir()
    with pytest.raises(BundleError):
        open_bundle(bundle)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_a_files_place_is_found_and_not_waited_for(bundle, name):
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(BundleError):
        open_bundle(bundle)


@pytest.mark.parametrize(("first", "second"), [("model.onnx", "golden.npz"), ("labels.txt", "model.onnx")])
def test_exchanged_files_are_found(bundle, first, second):
    one, two = (bundle / first).read_bytes(), (bundle / second).read_bytes()
    (bundle / first).write_bytes(two)
    (bundle / second).write_bytes(one)
    with pytest.raises(BundleError):
        open_bundle(bundle)


def test_a_changed_byte_of_equal_size_and_date_is_found(bundle):
    path = bundle / "model.onnx"
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=times)
    with pytest.raises(BundleError, match="SHA-256 differs"):
        open_bundle(bundle)
