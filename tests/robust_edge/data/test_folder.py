"""Trees of real PNG and JPEG files, and everything that can be wrong with one."""

import numpy as np
import pytest
import torch
from PIL import Image

from robust_edge.data import load_dataset
from robust_edge.data.settings import DataConfig
from robust_edge_runtimes.core.errors import InputError


def pixels(seed, size=(6, 6), channels=3):
    width, height = size
    shape = (height, width, 3) if channels == 3 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def write_tree(root, *, counts=None, size=(6, 6), suffix="png", channels=3):
    """train/ and test/ with `counts[split][class]` images; returns every array by its path."""
    counts = counts or {"train": {"cat": 3, "dog": 3}, "test": {"cat": 2, "dog": 2}}
    written = {}
    for split, classes in counts.items():
        for name, count in classes.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                path = folder / f"{i:03}.{suffix}"
                array = pixels(len(written), size, channels)
                Image.fromarray(array).save(path)
                written[path] = array
    return written


def load(root, **settings):
    return load_dataset(DataConfig(dataset="folder", dir=str(root), **settings))


def planes(array):
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


@pytest.mark.parametrize("channels", [1, 3])
def test_png_pixels_labels_and_classes_are_what_was_written(tmp_path, channels):
    written = write_tree(tmp_path, channels=channels, size=(7, 5))
    dataset = load(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert dataset.shape == (channels, 5, 7)
    for split, name, count in ((dataset.train, "train", 6), (dataset.test, "test", 4)):
        assert len(split) == count
        expected = {
            (planes(array).numpy().tobytes(), ("cat", "dog").index(path.parent.name))
            for path, array in written.items()
            if path.parent.parent.name == name
        }
        found = {(image.numpy().tobytes(), int(label)) for image, label in zip(split.images, split.labels, strict=True)}
        assert found == expected


def test_jpeg_pixels_are_pillow_s(tmp_path):
    written = write_tree(tmp_path, suffix="jpg", size=(16, 16))
    first = min(path for path in written if "train" in path.parts)
    with Image.open(first) as picture:
        expected = planes(np.asarray(picture.convert("RGB")))
    assert torch.equal(load(tmp_path).train.images[0], expected)


def test_classes_are_sorted_and_labels_follow_that_order(tmp_path):
    write_tree(tmp_path, counts={"train": {"zebra": 1, "ant": 2, "Bee": 1}, "test": {"Bee": 1, "zebra": 1, "ant": 1}})
    dataset = load(tmp_path)
    assert dataset.classes == ("Bee", "ant", "zebra")
    assert torch.bincount(dataset.train.labels).tolist() == [1, 2, 1]


def test_the_order_does_not_depend_on_the_file_system(tmp_path):
    one = load_tree = tmp_path / "one"
    written = write_tree(one)
    two = tmp_path / "two"
    for path in reversed(sorted(written)):
        copy = two / path.relative_to(one)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert load(two).fingerprint() == load(load_tree).fingerprint()


def test_limits_are_even_over_the_classes(tmp_path):
    write_tree(tmp_path, counts={"train": {"a": 9, "b": 9, "c": 2}, "test": {"a": 3, "b": 3, "c": 3}})
    dataset = load(tmp_path, limit_train=8, limit_test=3)
    assert torch.bincount(dataset.train.labels).tolist() == [3, 3, 2]
    assert torch.bincount(dataset.test.labels).tolist() == [1, 1, 1]


def test_other_files_are_not_images(tmp_path):
    written = write_tree(tmp_path)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "README").write_text("nor a class")
    (tmp_path / "train" / "index.csv").write_text("a,b")
    assert len(load(tmp_path).train) + len(load(tmp_path).test) == len(written)


def test_suffixes_in_capitals_count(tmp_path):
    write_tree(tmp_path)
    for path in list((tmp_path / "test" / "cat").iterdir()):
        path.rename(path.with_suffix(".PNG"))
    assert len(load(tmp_path).test) == 4


def test_resize_brings_all_to_one_size(tmp_path):
    write_tree(tmp_path, size=(9, 6))
    Image.fromarray(pixels(99, (20, 30))).save(tmp_path / "train" / "dog" / "000.png")
    assert load(tmp_path, resize=8).shape == (3, 8, 8)


def test_palette_and_alpha_become_colour(tmp_path):
    write_tree(tmp_path)
    array = pixels(5)
    Image.fromarray(array).convert("RGBA").save(tmp_path / "train" / "cat" / "000.png")
    assert torch.equal(load(tmp_path).train.images[0], planes(array))


def refused(root, match, **settings):
    with pytest.raises(InputError, match=match) as caught:
        load(root, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_data_dir():
    with pytest.raises(InputError, match=r"needs data\.dir, "):
        load_dataset(DataConfig(dataset="folder"))


def test_not_a_folder(tmp_path):
    refused(tmp_path / "nowhere", "is not a folder")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "is not a folder")


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_missing_split(tmp_path, missing):
    write_tree(tmp_path)
    (tmp_path / missing).rename(tmp_path / "elsewhere")
    refused(tmp_path, rf"{missing} is missing")


def test_one_class_only(tmp_path):
    write_tree(tmp_path, counts={"train": {"cat": 3}, "test": {"cat": 2}})
    refused(tmp_path, r"1 class folder\(s\), at least 2")


def test_no_class_at_all(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "test").mkdir()
    refused(tmp_path, "0 class folder")


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_class(tmp_path, split):
    write_tree(tmp_path)
    for path in (tmp_path / split / "dog").iterdir():
        path.unlink()
    refused(tmp_path, rf"{split}/dog contains no images")


def test_classes_that_differ_are_named(tmp_path):
    write_tree(tmp_path, counts={"train": {"cat": 1, "dog": 1}, "test": {"cat": 1, "fox": 1}})
    refused(tmp_path, "only one of them has: dog, fox")


@pytest.mark.parametrize("split", ["train", "test"])
def test_another_size_names_the_image_and_the_way_out(tmp_path, split):
    write_tree(tmp_path)
    Image.fromarray(pixels(99, (8, 6))).save(tmp_path / split / "dog" / "001.png")
    text = refused(tmp_path, rf"{split}/dog/001\.png is 6x8 \(height x width\), but .*train/cat/000\.png is 6x6")
    assert "by data.resize=6x6" in text


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"just text", b"\x89PNG\r\n\x1a\n" + b"\0" * 30])
@pytest.mark.parametrize("name", ["000.png", "001.png"])
def test_a_broken_image(tmp_path, content, name):
    write_tree(tmp_path)
    (tmp_path / "train" / "cat" / name).write_bytes(content)
    refused(tmp_path, rf"train/cat/{name} cannot be read as an image")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_truncated_image(tmp_path, suffix):
    written = write_tree(tmp_path, suffix=suffix, size=(64, 64))
    path = tmp_path / "test" / "dog" / f"001.{suffix}"
    assert path in written
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(tmp_path, rf"test/dog/001\.{suffix} cannot be read as an image")


def test_a_folder_named_like_an_image(tmp_path):
    write_tree(tmp_path)
    (tmp_path / "train" / "cat" / "zzz.png").mkdir()
    refused(tmp_path, "zzz.png cannot be read as an image")


def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path):
    written = write_tree(tmp_path, channels=1)
    for path in written:
        Image.fromarray(np.linspace(0, 65535, 36).reshape(6, 6).astype(np.uint16)).save(path)
    dataset = load(tmp_path)
    assert dataset.shape == (1, 6, 6)
    assert torch.equal(dataset.train.images[0, 0].flatten(), (torch.arange(36) * 255 / 35).round().byte())


def test_the_channels_are_those_of_the_whole_set(tmp_path):
    written = write_tree(tmp_path, channels=1)
    path = max(path for path in written if "test" in path.parts)
    Image.fromarray(pixels(7)).save(path)
    mixed = load(tmp_path)
    assert mixed.shape == (3, 6, 6)
    assert mixed.notes == ("9 of 10 pictures are grey; all are read in colour, which data.channels would change",)
    assert load(tmp_path, channels=1).shape == (1, 6, 6)
    Image.fromarray(pixels(7, channels=1)).save(path)
    assert (load(tmp_path).shape, load(tmp_path).notes) == ((1, 6, 6), ())
    assert load(tmp_path, channels=3).shape == (3, 6, 6)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"resize": "4x6"}, (3, 4, 6)),
        ({"resize": 8, "crop": 6}, (3, 6, 6)),
        ({"resize": "9x9", "crop": "6x8"}, (3, 6, 8)),
        ({"crop": 3}, (3, 3, 3)),
    ],
)
def test_sizes_are_height_by_width(tmp_path, settings, shape):
    write_tree(tmp_path, size=(7, 5))
    Image.fromarray(pixels(99, (20, 30))).save(tmp_path / "train" / "dog" / "000.png")
    dataset = load(tmp_path, **settings)
    assert dataset.shape == shape
    assert dataset.preprocessing.frame == shape[1:]


def test_a_crop_that_is_larger_than_the_scaled_picture_is_refused():
    with pytest.raises(InputError, match=r"data\.crop 224x224 is larger than resize 200"):
        DataConfig(resize=200, crop=224)


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    write_tree(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    refused(tmp_path, "cannot be read as an image")
