"""CIFAR-10 and CIFAR-100 through torchvision."""

from __future__ import annotations

from typing import Any

import torch

from robust_edge.data.dataset import Dataset, Split, evenly
from robust_edge.data.read_settings import ReadSettings
from robust_edge.torchvision_compat import torchvision_module
from robust_edge_runtimes.core.errors import InputError


def load_cifar10(settings: ReadSettings) -> Dataset:
    """60,000 images of 32×32, 10 classes."""
    return _load("cifar10", "CIFAR10", settings)


def load_cifar100(settings: ReadSettings) -> Dataset:
    """60,000 images of 32×32, 100 classes."""
    return _load("cifar100", "CIFAR100", settings)


def _load(name: str, class_name: str, settings: ReadSettings) -> Dataset:
    settings.refuse_settings_of_pictures()
    if settings.dir is None:
        raise InputError(f"{name} needs data.dir, the folder of its files; data.download downloads them")
    reader = getattr(torchvision_module("datasets"), class_name)
    try:
        parts = [reader(settings.dir, train=train, download=settings.download) for train in (True, False)]
    except RuntimeError as cause:
        raise InputError(
            f"{name} is not in {settings.dir} ({cause}); set data.download, or another data.dir"
        ) from cause
    train, test = parts
    return Dataset(name, tuple(train.classes), _split(train, settings.limit_train), _split(test, settings.limit_test))


def _split(part: Any, limit: int | None) -> Split:
    labels = torch.tensor(part.targets, dtype=torch.int64)
    chosen = evenly(labels, limit)
    images = torch.from_numpy(part.data).permute(0, 3, 1, 2)[chosen].contiguous()
    return Split(images, labels[chosen])
