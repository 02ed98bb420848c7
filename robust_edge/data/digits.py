"""scikit-learn's digits: 1,797 scans of handwritten digits, 8×8 pixels, included in scikit-learn."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch

from robust_edge.data.dataset import Dataset, Split, evenly
from robust_edge.data.read_settings import ReadSettings

TEST_PERIOD = 5
LEVELS = 16
CLASSES = 10
FILE = "datasets/data/digits.csv.gz"  # in scikit-learn's folder: 64 pixels and the class in every line


def load_digits(settings: ReadSettings) -> Dataset:
    """1,440 training and 357 test images: every fifth image of each class is a test image.

    Pixels have the levels 0 to 16 and are stored as such.
    """
    settings.refuse_settings_of_pictures()
    table = _table()
    images = torch.from_numpy(table[:, :-1].reshape(-1, 1, 8, 8).astype(np.uint8))
    labels = torch.from_numpy(table[:, -1].astype(np.int64))
    mixed = evenly(labels, None)
    held_out = torch.arange(len(mixed)) // CLASSES % TEST_PERIOD == TEST_PERIOD - 1
    train, test = mixed[~held_out], mixed[held_out]
    return Dataset(
        "digits",
        tuple(map(str, range(CLASSES))),
        Split(images[train], labels[train], LEVELS).first(settings.limit_train),
        Split(images[test], labels[test], LEVELS).first(settings.limit_test),
    )


def _table() -> np.ndarray:
    """(1797, 65): pixels and class of each image.

    The file is read without importing scikit-learn, which takes a second. Where it lies elsewhere,
    scikit-learn finds it.
    """
    found = importlib.util.find_spec("sklearn")
    for folder in () if found is None else found.submodule_search_locations or ():
        if (Path(folder) / FILE).is_file():
            return np.loadtxt(Path(folder) / FILE, delimiter=",")
    from sklearn.datasets import load_digits as read

    bunch = read()
    return np.column_stack([bunch.data, bunch.target])
