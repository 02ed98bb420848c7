"""scikit-learn's digits: 1,797 scans of handwritten digits, 8×8 pixels, included in scikit-learn."""

from __future__ import annotations

import torch

from robust_edge.data.dataset import Dataset, Split, evenly
from robust_edge.data.read_settings import ReadSettings

TEST_PERIOD = 5
LEVELS = 16


def load_digits(config: ReadSettings) -> Dataset:
    """1,440 training and 357 test images: every fifth image of each class is a test image.

    Pixels have the levels 0 to 16 and are stored as such.
    """
    from sklearn.datasets import load_digits as read

    bunch = read()
    images = torch.from_numpy(bunch.images).to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    mixed = evenly(labels, None)
    held_out = torch.arange(len(mixed)) // len(bunch.target_names) % TEST_PERIOD == TEST_PERIOD - 1
    train, test = mixed[~held_out], mixed[held_out]
    return Dataset(
        "digits",
        tuple(str(name) for name in bunch.target_names),
        Split(images[train], labels[train], LEVELS).first(config.limit_train),
        Split(images[test], labels[test], LEVELS).first(config.limit_test),
    )
