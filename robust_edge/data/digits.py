"""scikit-learn's digits: 1,797 real 8×8 scans of handwriting, inside the package."""

from __future__ import annotations

import torch

from robust_edge.data.dataset import Dataset, Split, evenly
from robust_edge.data.settings import DataConfig

TEST_SHARE = 5
LEVELS = 16


def load_digits(config: DataConfig) -> Dataset:
    """Every fifth image of each class is for testing: 1,440 to train, 357 to test.

    Pixels have 17 levels, 0 to 16, and are stored as such.
    """
    from sklearn.datasets import load_digits as read

    bunch = read()
    images = torch.from_numpy(bunch.images).to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    mixed = evenly(labels, None)
    held_out = torch.arange(len(mixed)) // len(bunch.target_names) % TEST_SHARE == TEST_SHARE - 1
    train, test = mixed[~held_out], mixed[held_out]
    return Dataset(
        "digits",
        tuple(str(name) for name in bunch.target_names),
        Split(images[train], labels[train], LEVELS).first(config.limit_train),
        Split(images[test], labels[test], LEVELS).first(config.limit_test),
    )
