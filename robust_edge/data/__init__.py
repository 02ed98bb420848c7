"""Data sets by name, the user's own, and batched augmentation."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from robust_edge.config import DataConfig
from robust_edge.data.dataset import Dataset, Split
from robust_edge.imports import import_function
from robust_edge_runtimes.errors import InputError, unknown_name

__all__ = ["DATASETS", "Dataset", "Split", "load_dataset"]

DATASETS = {
    "digits": "robust_edge.data.digits:load_digits",
    "cifar10": "robust_edge.data.cifar:load_cifar10",
    "cifar100": "robust_edge.data.cifar:load_cifar100",
    "folder": "robust_edge.data.folder:load_folder",
}


def load_dataset(config: DataConfig) -> Dataset:
    """Read the images that a config names.

    Raises:
        InputError: an unknown name, or what the reader finds wrong.
    """
    dataset = _reader(config.dataset)(config)
    if not isinstance(dataset, Dataset):
        raise InputError(f"data set {config.dataset!r} returned {type(dataset).__name__}, not a robust_edge Dataset")
    if len(dataset.classes) < 2:
        raise InputError(f"data set {config.dataset!r} has {len(dataset.classes)} class; at least 2 are needed")
    for name, split in (("training", dataset.train), ("test", dataset.test)):
        if not len(split):
            raise InputError(f"data set {config.dataset!r} has no {name} images")
    return dataset


def _reader(name: str) -> Callable[[DataConfig], Dataset]:
    if ":" in name:
        return import_function("data set", name)  # type: ignore[no-any-return]
    if name not in DATASETS:
        raise unknown_name("data set", name, [*DATASETS, "package.module:function"])
    module, function = DATASETS[name].split(":")
    return getattr(importlib.import_module(module), function)  # type: ignore[no-any-return]
