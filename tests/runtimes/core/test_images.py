from __future__ import annotations

import builtins
import io
import pickle
import struct
import zlib

import numpy as np
import pytest

from robust_edge_runtimes.core.errors import BackendUnavailable, InputError
from robust_edge_runtimes.core.images import read_image


class Bomb:
    """Unpickling it fails the test."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def test_float_arrays_arrive_as_they_are(tmp_path):
    image = np.random.default_rng(0).uniform(0, 1, (3, 4, 5)).astype(np.float32)
    np.save(tmp_path / "x.npy", image)
    assert np.array_equal(read_image(tmp_path / "x.npy", (3, 4, 5)), image)


def test_bytes_are_divided_by_255(tmp_path):
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    np.save(tmp_path / "x.npy", levels)
    found = read_image(tmp_path / "x.npy", (1, 16, 16))
    assert found.dtype == np.float32
    assert np.array_equal(found, (levels / 255).astype(np.float32))
    assert (found.min(), found.max()) == (0, 1)


@pytest.mark.parametrize("kind", [np.float64, np.int64, bool, "<U3", ">f4"])
def test_other_types_are_refused(tmp_path, kind):
    np.save(tmp_path / "x.npy", np.zeros((1, 4, 4)).astype(kind))
    with pytest.raises(InputError, match="save float32"):
        read_image(tmp_path / "x.npy", (1, 4, 4))


@pytest.mark.parametrize("value", [-0.1, 1.1, np.nan])
def test_pixels_out_of_range_are_refused_by_the_name_of_their_file(tmp_path, value):
    np.save(tmp_path / "x.npy", np.full((1, 4, 4), value, np.float32))
    with pytest.raises(InputError, match=r"x\.npy has pixels in"):
        read_image(tmp_path / "x.npy", (1, 4, 4))


def header(text):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def archive():
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return buffer.getvalue()


BROKEN = {
    "empty": b"",
    "text": b"hello",
    "archive": archive(),
    "pickle": pickle.dumps(Bomb()),
    "cut off": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4, 4), }") + b"\0" * 63,
    "huge": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999, 99999999), }"),
    "open bracket": header(b"{'descr': '<f4', 'fortran_order': False, 'shape': ((((((("),
    "no header": header(b""),
    "objects": header(b"{'descr': '|O', 'fortran_order': False, 'shape': (), }") + pickle.dumps(Bomb()),
}


@pytest.mark.filterwarnings("ignore::UserWarning")  # numpy's, on headers it calls Python 2's
@pytest.mark.parametrize("case", BROKEN)
def test_broken_arrays_are_input_errors(tmp_path, case):
    (tmp_path / "x.npy").write_bytes(BROKEN[case])
    with pytest.raises(InputError, match=r"not a plain \.npy array"):
        read_image(tmp_path / "x.npy", (1, 4, 4))


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (1, 4, 5), (3, 4, 4), (1, 1, 4, 4)])
def test_another_size_is_said_and_not_resized(tmp_path, shape):
    np.save(tmp_path / "x.npy", np.zeros(shape, np.float32))
    with pytest.raises(InputError, match="resize it first"):
        read_image(tmp_path / "x.npy", (1, 4, 4))


def test_missing_files_and_folders_are_named(tmp_path):
    for path in (tmp_path / "none.png", tmp_path / "none.npy", tmp_path):
        with pytest.raises(InputError, match="is not a file"):
            read_image(path, (1, 4, 4))


def test_pictures_keep_their_pixels_and_their_axes(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="pictures are read with Pillow")
    levels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    image.fromarray(levels).save(tmp_path / "x.png")
    found = read_image(tmp_path / "x.png", (3, 4, 6))
    assert found.dtype == np.float32
    for c in range(3):
        assert np.array_equal(found[c], (levels[:, :, c] / 255).astype(np.float32))


def test_colour_becomes_grey_and_grey_becomes_colour(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="pictures are read with Pillow")
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
    image.fromarray(grey).save(tmp_path / "grey.png")
    image.fromarray(np.stack([grey] * 3, axis=2)).save(tmp_path / "colour.png")
    for name in ("grey.png", "colour.png"):
        assert np.array_equal(read_image(tmp_path / name, (1, 4, 4))[0], (grey / 255).astype(np.float32))
        assert np.array_equal(read_image(tmp_path / name, (3, 4, 4))[1], (grey / 255).astype(np.float32))


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pictures_of_more_than_16_bits_are_refused_and_not_cut_off(tmp_path, kind):
    image = pytest.importorskip("PIL.Image", reason="pictures are read with Pillow")
    image.fromarray(np.arange(16).reshape(4, 4).astype(kind) * 4096).save(tmp_path / "x.tiff")
    with pytest.raises(InputError, match="more than 16 bits per channel"):
        read_image(tmp_path / "x.tiff", (1, 4, 4))


def png(width, height):
    """A picture whose header promises `width` x `height` and whose data do not follow."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n", png(4, 4), png(60000, 60000), b"GIF89a" + b"\xff" * 30]
)
def test_broken_pictures_are_input_errors(tmp_path, content):
    pytest.importorskip("PIL", reason="pictures are read with Pillow")
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_image(tmp_path / "x.png", (1, 4, 4))


def test_without_pillow_the_way_out_is_named(tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(b"")
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "PIL":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BackendUnavailable, match=r"pip install pillow; or pass a \.npy file"):
        read_image(tmp_path / "x.png", (1, 4, 4))
