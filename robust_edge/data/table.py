"""The table of data sets: a data set is one file with a function that reads it, and one row here."""

from __future__ import annotations

from robust_edge.plugins import Row

DATASETS = {
    "digits": Row(
        "robust_edge.data.digits:load_digits", "1,797 handwritten digits of 8×8 pixels, part of scikit-learn"
    ),
    "cifar10": Row("robust_edge.data.cifar:load_cifar10", "60,000 images of 32×32 pixels in 10 classes"),
    "cifar100": Row("robust_edge.data.cifar:load_cifar100", "60,000 images of 32×32 pixels in 100 classes"),
    "folder": Row("robust_edge.data.folder:load_folder", "image files as train/CLASS/* and test/CLASS/*"),
}
