"""Pictures of every kind give the same pixels in training, in `predict` and in the `run.py` of a bundle."""

from __future__ import annotations

import ast
import io
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.images import read_image
from robust_edge_runtimes.core.pictures import PictureError, is_grey, read_picture
from robust_edge_runtimes.core.preprocessing import Preprocessing

Image = pytest.importorskip("PIL.Image", reason="pictures are read with Pillow")

ROOT = Path(__file__).parents[3]
COLOURS = np.random.default_rng(0).integers(0, 256, (7, 10, 3), dtype=np.uint8)
GREY = COLOURS[:, :, 0]


def written(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(array, orientation):
    """What a camera stores that was held so, and the Exif that says it. Source: Exif 2.32, tag 0x0112."""
    back = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.swapaxes(0, 1),
        6: lambda x: np.rot90(x, 1),
        7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
        8: lambda x: np.rot90(x, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    return Image.fromarray(np.ascontiguousarray(back[orientation](array))), exif


def with_alpha(alpha):
    return np.dstack([COLOURS, np.full(GREY.shape, alpha, np.uint8)])


def planes(array):
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_every_orientation_is_turned_upright(kind, orientation):
    picture, exif = turned(COLOURS, orientation)
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(read_picture(written(picture, kind, exif=exif, **options), 3, {}), planes(COLOURS))


def test_a_camera_s_jpeg_is_turned_as_pillow_does():
    from PIL import ImageOps

    picture, exif = turned(np.kron(COLOURS, np.ones((8, 8, 1), np.uint8)), 6)
    data = written(picture, "JPEG", exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        expected = planes(np.asarray(ImageOps.exif_transpose(opened).convert("RGB")))
    assert expected.shape == (3, 56, 80)
    assert np.array_equal(read_picture(data, 3, {}), expected)


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (10, 200, 30)])
def test_alpha_is_composited_over_the_background(background):
    rules = {"background": list(background)}
    assert np.array_equal(read_picture(written(Image.fromarray(with_alpha(255))), 3, rules), planes(COLOURS))
    clear = read_picture(written(Image.fromarray(with_alpha(0))), 3, rules)
    assert np.array_equal(clear, np.broadcast_to(np.array(background)[:, None, None], clear.shape))
    half = read_picture(written(Image.fromarray(with_alpha(128))), 3, rules).astype(float)
    expected = planes(COLOURS) * (128 / 255) + np.array(background)[:, None, None] * (127 / 255)
    assert np.abs(half - expected).max() <= 1


def test_transparent_parts_are_white_by_default():
    assert (read_picture(written(Image.fromarray(with_alpha(0))), 3, {}) == 255).all()


def test_a_transparent_palette_and_a_transparent_colour_count():
    palette = Image.new("P", (4, 3), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    assert np.unique(read_picture(written(palette), 3, {})[0]).tolist() == [9]
    assert (read_picture(written(palette, transparency=1), 3, {}) == 255).all()
    flat = Image.new("L", (4, 3), 77)
    assert (read_picture(written(flat, transparency=77), 1, {}) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_of_grey_are_scaled_and_rounded(kind):
    levels = np.array([[0, 128, 129, 257, 32767, 32768, 65406, 65535]], np.uint16)
    found = read_picture(written(Image.fromarray(levels), kind), 1, {})
    assert found[0, 0].tolist() == [round(value * 255 / 65535) for value in levels[0].tolist()]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_more_than_16_bits_are_refused_and_not_cut_off(kind):
    data = written(Image.fromarray(np.arange(16).reshape(4, 4).astype(kind) * 4096), "TIFF")
    with pytest.raises(PictureError, match="more than 16 bits per channel"):
        read_picture(data, 1, {})


def test_other_formats_are_not_opened():
    data = written(Image.fromarray(GREY), "TGA")
    with pytest.raises(PictureError, match="cannot be read as an image"):
        read_picture(data, 1, {})
    Image.open(io.BytesIO(data)).close()  # Pillow itself would


@pytest.mark.parametrize("size", [(10, 7), (7, 10), (31, 8), (64, 64), (9, 8)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_scaling_and_cropping_are_torchvision_s(size, interpolation):
    pytest.importorskip("torch", reason="torchvision needs it")
    from robust_edge.torchvision_compat import torchvision_module

    transforms = torchvision_module("transforms")
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8))
    mode = transforms.InterpolationMode(interpolation)
    for resize, crop in ((8, (7, 7)), (9, (6, 5)), ((8, 12), (3, 8))):
        expected = transforms.CenterCrop(crop)(transforms.Resize(resize, mode)(picture))
        sides = [resize] if isinstance(resize, int) else list(resize)
        rules = {"resize": sides, "crop": list(crop), "interpolation": interpolation}
        assert np.array_equal(read_picture(written(picture), 3, rules), planes(np.asarray(expected))), (resize, crop)


def test_a_picture_smaller_than_the_crop_and_an_endless_one_are_refused():
    with pytest.raises(PictureError, match="too small to crop"):
        read_picture(written(Image.fromarray(GREY)), 1, {"crop": [8, 8]})
    with pytest.raises(PictureError, match="too long to scale"):
        read_picture(written(Image.new("L", (60000, 1))), 1, {"resize": [256], "crop": [8, 8]})


def test_grey_is_known_by_the_header():
    grey = [Image.fromarray(GREY), Image.fromarray(GREY > 9), Image.fromarray(GREY.astype(np.uint16) * 257)]
    assert all(is_grey(written(picture)) for picture in (*grey, grey[0].convert("LA")))
    others = (Image.fromarray(COLOURS), Image.fromarray(GREY).convert("P"), Image.fromarray(with_alpha(3)))
    assert not any(is_grey(written(picture)) for picture in others)


def pictures():
    """Name and content of a picture of every kind, of odd sizes."""
    large = np.kron(COLOURS, np.ones((5, 3, 1), np.uint8))
    camera, exif = turned(large, 8)
    return {
        "camera.jpg": written(camera, "JPEG", exif=exif),
        "alpha.png": written(Image.fromarray(with_alpha(90))),
        "palette.gif": written(Image.fromarray(large).quantize(7), "GIF", transparency=2),
        "deep.png": written(Image.fromarray(GREY.astype(np.uint16) * 201)),
        "print.jpg": written(Image.fromarray(large).convert("CMYK"), "JPEG"),
        "print.tiff": written(Image.fromarray(COLOURS).convert("CMYK"), "TIFF"),
        "bits.png": written(Image.fromarray(GREY > 100)),
        "grey-alpha.webp": written(Image.fromarray(with_alpha(7)).convert("LA").convert("RGBA"), "WEBP", lossless=True),
        "odd.bmp": written(Image.fromarray(COLOURS[:5, :3]), "BMP"),
    }


@pytest.mark.parametrize("channels", [1, 3])
def test_training_predict_and_run_py_see_the_same_pixels(tmp_path, channels):
    pytest.importorskip("torch", reason="training needs it")
    from robust_edge.data import load_dataset
    from robust_edge.data.settings import DataConfig
    from robust_edge_exporters.standalone import definitions

    for split in ("train", "test"):
        for label in ("a", "b"):
            (tmp_path / split / label).mkdir(parents=True)
            for name, data in pictures().items():
                (tmp_path / split / label / name).write_bytes(data)
    settings = DataConfig(
        dataset="folder", dir=str(tmp_path), resize=9, crop="8x7", background=(250, 20, 0), channels=channels
    )
    dataset = load_dataset(settings)
    assert dataset.shape == (channels, 8, 7)
    paths = sorted((tmp_path / "train" / "a").iterdir())
    trained = dataset.train.floats(dataset.train.labels == 0).numpy()
    predicted = np.stack([read_image(path, dataset.shape, dataset.preprocessing) for path in paths])
    assert np.array_equal(np.sort(trained.reshape(len(paths), -1), 0), np.sort(predicted.reshape(len(paths), -1), 0))
    assert np.array_equal(trained, predicted)
    assert len(np.unique(predicted.reshape(len(paths), -1), axis=0)) == len(paths)
    script = "import io, sys\nfrom pathlib import Path\nfrom typing import *\nimport numpy as np\n"
    script += definitions("robust_edge_runtimes.core.pictures")
    rules = dataset.preprocessing.rules()
    script += f"\nfor path in sys.argv[1:]: sys.stdout.buffer.write(read_picture(path, {channels}, {rules}).tobytes())"
    done = subprocess.run([sys.executable, "-I", "-c", script, *map(str, paths)], capture_output=True, check=True)
    own = np.frombuffer(done.stdout, np.uint8).reshape(predicted.shape).astype(np.float32) / np.float32(255)
    assert np.array_equal(own, predicted)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"resize": (8, 8, 8)}, "one length or two"),
        ({"crop": (8,)}, "a height and a width"),
        ({"resize": (0, 8)}, "lengths of 1 to"),
        ({"resize": (1 << 20, 8)}, "lengths of 1 to"),
        ({"resize": (8,), "crop": (8, 9)}, "crop 8x9 is larger than resize 8"),
        ({"resize": (8,)}, "a crop is needed"),
        ({"interpolation": "exact"}, "interpolation must be one of"),
        ({"background": (0, 0)}, "three levels"),
        ({"background": (0, 0, 256)}, "three levels"),
    ],
)
def test_an_impossible_preprocessing_has_its_reason(wrong, match):
    assert match in Preprocessing(**wrong).problem
    assert Preprocessing().problem is None


def test_a_picture_for_a_network_of_two_channels_is_refused():
    with pytest.raises(InputError, match="takes 2 channels"):
        read_image(written(Image.fromarray(GREY)), (2, 7, 10))


def test_a_long_text_in_the_file_reaches_no_decoder():
    with pytest.raises(PictureError):
        read_picture(struct.pack("<I", 1) * 100, 3, {})


@pytest.mark.parametrize("kind", ["DDS", "EPS", "ICNS", "JPEG2000", "PCX", "PDF", "SGI", "SPIDER", "TGA"])
def test_no_decoder_of_another_format_sees_the_bytes(kind, monkeypatch):
    Image.init()
    if kind not in Image.SAVE or kind not in (*Image.OPEN, "PDF"):
        pytest.skip(f"this Pillow does not know {kind}")
    picture = Image.fromarray(GREY.astype(np.float32)) if kind == "SPIDER" else Image.fromarray(COLOURS)
    blob = written(picture, kind)

    def opened(*words):
        raise AssertionError(f"the decoder of {kind} was asked")

    if kind in Image.OPEN:
        monkeypatch.setitem(Image.OPEN, kind, (opened, opened))
    with pytest.raises(PictureError):
        read_picture(blob, 3, {})
    with pytest.raises(PictureError):
        is_grey(blob)


def test_every_call_that_opens_a_picture_names_the_formats():
    found = []
    for folder in ("robust_edge", "exporters", "runtimes", "examples"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                is_open = isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open")
                if is_open:
                    found.append((path.name, any(word.arg == "formats" for word in node.keywords)))
    assert found
    assert all(named for _, named in found), found
