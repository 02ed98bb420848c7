"""Read a data set by its name or by `package.module:function`, and check it."""

from __future__ import annotations

import torch

from robust_edge.data.dataset import Dataset, Split
from robust_edge.data.settings import DataConfig
from robust_edge.data.stored import chunks
from robust_edge.data.table import DATASETS
from robust_edge.plugins import load
from robust_edge_runtimes.core.errors import InputError


def load_dataset(config: DataConfig) -> Dataset:
    """Read the data set of a config.

    Raises:
        InputError: the name is unknown, or the data set is missing, broken or malformed.
    """
    dataset = _read(config)
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"data set {config.dataset!r} returned {type(dataset).__name__}, not a robust_edge.data.Dataset; return one"
        )
    if not all(isinstance(name, str) for name in dataset.classes) or len(set(dataset.classes)) < len(dataset.classes):
        shown = ", ".join(map(repr, dataset.classes[:5]))
        raise InputError(
            f"data set {config.dataset!r} must have a different name (str) for every class; the names are {shown}"
        )
    if len(dataset.classes) < 2:
        raise InputError(f"data set {config.dataset!r} has {len(dataset.classes)} class; it needs at least 2")
    for name, split, least in (("training", dataset.train, 2), ("test", dataset.test, 1)):
        if not isinstance(split, Split):
            raise InputError(f"data set {config.dataset!r}: {name} images are {type(split).__name__}, not a Split")
        if len(split) < least:
            raise InputError(f"data set {config.dataset!r} has {len(split)} {name} image(s); it needs at least {least}")
        problem = _problem(split, dataset)
        if problem:
            raise InputError(f"data set {config.dataset!r}: {name} {problem}")
    return dataset


def _read(config: DataConfig) -> Dataset:
    reader = load("data set", config.dataset, DATASETS)
    if ":" not in config.dataset:
        return reader(config)  # type: ignore[no-any-return]
    try:
        return reader(config)  # type: ignore[no-any-return]
    except Exception as cause:  # the function is the user's; it may raise anything
        raise InputError(f"data set {config.dataset!r} failed ({type(cause).__name__}: {cause})") from cause


def _problem(split: Split, dataset: Dataset) -> str | None:
    """Why a split cannot be used, or None; a reader of the user may return anything."""
    images, labels = split.images, split.labels
    if images.dtype != torch.uint8 or images.ndim != 4:
        return f"images must be uint8 (N, C, H, W), they are {images.dtype} {tuple(images.shape)}"
    if images.shape[1:] != dataset.train.images.shape[1:]:
        return f"images have shape {tuple(images.shape[1:])}, but the training images {dataset.shape}"
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        return f"labels must be int64 ({len(images)},), they are {labels.dtype} {tuple(labels.shape)}"
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(dataset.classes):
        return f"labels range from {low} to {high}, but there are {len(dataset.classes)} classes"
    brightest = 0 if split.levels >= 255 else int(max(part.max() for part in chunks(images)))
    if brightest > split.levels:
        return f"images contain the value {brightest}, but levels, the value of 1.0, is {split.levels}"
    return None
