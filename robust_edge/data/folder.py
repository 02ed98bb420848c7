"""Image files in folders: `train/CLASS/*` and `test/CLASS/*`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from robust_edge.data.dataset import Dataset, Split, evenly
from robust_edge.data.read_settings import ReadSettings
from robust_edge.data.stored import StoredImages
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.pictures import PictureError, is_grey, read_picture
from robust_edge_runtimes.core.preprocessing import Preprocessing

T = TypeVar("T")
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


def load_folder(settings: ReadSettings) -> Dataset:
    """Read a folder of images; too many for memory are read on demand. If all of them are grey, they are read as grey.

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
    channels, notes = _channels([path for path, _ in (*train, *test)], settings.channels)
    reader = _Reader(train[0][0], channels, settings.preprocessing)
    stays = settings.stays((len(train) + len(test)) * reader.pixels)
    return Dataset(
        "folder",
        classes,
        _split(reader, train, stays=stays),
        _split(reader, test, stays=stays),
        preprocessing=settings.preprocessing,
        notes=notes,
    )


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


def _channels(paths: Sequence[Path], given: int | None) -> tuple[int, tuple[str, ...]]:
    """The number of channels of all pictures, and a note where some differ from the others."""
    if given is not None:
        return given, ()
    grey = sum(_readable(path, is_grey) for path in paths)
    if grey in (0, len(paths)):
        return (1 if grey else 3), ()
    text = f"{grey} of {len(paths)} pictures are grey; all are read in colour, which data.channels would change"
    return 3, (text,)


def _readable(path: Path, read: Callable[[Path], T]) -> T:
    try:
        return read(path)
    except PictureError as cause:
        raise InputError(f"{path} {cause}; replace or remove it") from cause


class _Reader:
    """Reads pictures with the same number of channels, and in the size of the first one."""

    def __init__(self, first: Path, channels: int, preprocessing: Preprocessing) -> None:
        self.first = first
        self.channels = channels
        self.rules = preprocessing.rules()
        self.shape: tuple[int, int, int] = self._read(first).shape

    @property
    def pixels(self) -> int:
        """Bytes of one image."""
        return math.prod(self.shape)

    def __call__(self, path: Path) -> np.ndarray:
        """(C, H, W) uint8."""
        pixels = self._read(path)
        if pixels.shape != self.shape:
            (height, width), first = pixels.shape[1:], f"{self.shape[1]}x{self.shape[2]}"
            raise InputError(
                f"{path} is {height}x{width} (height x width), but {self.first} is {first}; resize the images to one "
                f"size, or have all of them resized to height x width by data.resize={first}"
            )
        return pixels

    def _read(self, path: Path) -> np.ndarray:
        return _readable(path, lambda readable: read_picture(readable, self.channels, self.rules))


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
        return torch.from_numpy(np.stack([self.reader(self.paths[index]) for index in indices]))

    def take(self, indices: Sequence[int]) -> FolderImages:
        """The chosen files."""
        return FolderImages(self.reader, [self.paths[index] for index in indices])


def _split(reader: _Reader, files: list[tuple[Path, int]], *, stays: bool) -> Split:
    images = FolderImages(reader, [path for path, _ in files])
    labels = torch.tensor([label for _, label in files], dtype=torch.int64)
    return Split(images[:] if stays else images, labels)
