"""Image files in folders: `train/CLASS/*` and `test/CLASS/*`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from robust_edge.data.dataset import Dataset, Split, evenly
from robust_edge.data.read_settings import ReadSettings
from robust_edge.data.stored import StoredImages
from robust_edge_runtimes.core.errors import InputError

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
GREY_MODES = {"1", "L"}
DEEP_MODES = ("I", "F")  # 16 bits and more; Pillow would silently clip them to 255
BROKEN = (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError)


def load_folder(settings: ReadSettings) -> Dataset:
    """Read a folder of images; too many for memory are read on demand. If the first one is grey, all are read as grey.

    Raises:
        InputError: the folder, its `train` or its `test` is missing; there are fewer than two classes; `train` and
            `test` have different classes; an image is broken; or images differ in size.
    """
    if settings.dir is None:
        raise InputError("dataset 'folder' needs data.dir, a folder with train/CLASS/* and test/CLASS/*")
    root = Path(settings.dir)
    if not root.is_dir():
        raise InputError(f"data.dir is {root}, which is not a folder; give one with train/CLASS/* and test/CLASS/*")
    classes = _classes(root / "train")
    if classes != _classes(root / "test"):
        differing = sorted(set(classes) ^ set(_classes(root / "test")))
        raise InputError(
            f"{root}: train and test must have the same classes; only one of them has: {', '.join(differing)}"
        )
    train, test = (
        _files(root / "train", classes, settings.limit_train),
        _files(root / "test", classes, settings.limit_test),
    )
    reader = _Reader(train[0][0], settings.resize)
    stays = settings.stays((len(train) + len(test)) * reader.pixels)
    return Dataset("folder", classes, _split(reader, train, stays=stays), _split(reader, test, stays=stays))


def _classes(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise InputError(f"{folder} is missing; a folder data set has train/CLASS/* and test/CLASS/*")
    names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))
    if len(names) < 2:
        raise InputError(f"{folder} has {len(names)} class folder(s), at least 2 are needed: {folder}/CLASS/*")
    return names


def _files(folder: Path, classes: tuple[str, ...], limit: int | None) -> list[tuple[Path, int]]:
    found: list[tuple[Path, int]] = []
    for label, name in enumerate(classes):
        paths = sorted(p for p in (folder / name).iterdir() if p.suffix.lower() in SUFFIXES)
        if not paths:
            raise InputError(
                f"{folder / name} contains no images ({', '.join(sorted(SUFFIXES))}); add some, or remove it"
            )
        found += [(path, label) for path in paths]
    order = evenly(torch.tensor([label for _, label in found]), limit)
    return [found[index] for index in order.tolist()]


class _Reader:
    """Reads images in the colour mode and the size of the first one."""

    def __init__(self, first: Path, resize: int | None) -> None:
        self.resize = resize
        self.first = first
        with _open(first) as picture:
            self.mode = "L" if picture.mode in GREY_MODES else "RGB"
            self.size = (resize, resize) if resize else picture.size

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        width, height = self.size
        return (1 if self.mode == "L" else 3), height, width

    @property
    def pixels(self) -> int:
        """Bytes of one image."""
        return math.prod(self.shape)

    def __call__(self, path: Path) -> np.ndarray:
        with _open(path) as picture:
            if picture.mode.startswith(DEEP_MODES):
                raise InputError(f"{path} has more than 8 bits per channel (mode {picture.mode}); convert it to 8 bits")
            try:
                pixels = picture.convert(self.mode)
            except BROKEN as cause:
                raise InputError(f"{path} is a broken image ({cause}); replace or remove it") from cause
        if self.resize:
            pixels = pixels.resize(self.size, Image.Resampling.BILINEAR)
        if pixels.size != self.size:
            width, height = pixels.size
            raise InputError(
                f"{path} is {width}×{height}, but {self.first} is {self.size[0]}×{self.size[1]}; resize the "
                f"images to one size, or set data.resize to {self.size[0]}"
            )
        return np.asarray(pixels)


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except BROKEN as cause:
        raise InputError(f"{path} is a broken image ({cause}); replace or remove it") from cause


class FolderImages(StoredImages):
    """Image files that are decoded on indexing."""

    def __init__(self, reader: _Reader, paths: Sequence[Path]) -> None:
        self.reader = reader
        self.paths = paths

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return len(self.paths), *self.reader.shape

    def read(self, indices: Sequence[int]) -> torch.Tensor:
        """(n, C, H, W) uint8."""
        pixels = np.stack([self.reader(self.paths[index]) for index in indices])
        planes = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
        return torch.from_numpy(np.ascontiguousarray(planes))

    def take(self, indices: Sequence[int]) -> FolderImages:
        """The chosen files."""
        return FolderImages(self.reader, [self.paths[index] for index in indices])


def _split(reader: _Reader, files: list[tuple[Path, int]], *, stays: bool) -> Split:
    images = FolderImages(reader, [path for path, _ in files])
    labels = torch.tensor([label for _, label in files], dtype=torch.int64)
    return Split(images[:] if stays else images, labels)
