"""The images that a run was trained and evaluated on."""

from __future__ import annotations

import dataclasses

from robust_edge.data import Dataset, Split, load_dataset
from robust_edge.run.directory import Run
from robust_edge_runtimes.core.errors import InputError


def dataset_of(run: Run, data_dir: str | None = None) -> Dataset:
    """The run's data set.

    Args:
        run: a finished run.
        data_dir: present folder of its images, if they were moved.

    Raises:
        InputError: the images in the folder are not those of the run.
    """
    settings = run.config.data if data_dir is None else dataclasses.replace(run.config.data, dir=data_dir)
    dataset = load_dataset(settings)
    checkpoint = run.checkpoint()
    if dataset.fingerprint() != checkpoint.dataset_fingerprint:
        raise InputError(
            f"the present {dataset.name} images are not those of {run.path}; give their folder as `data_dir`"
        )
    return dataset.with_classes(checkpoint.model.classes)


def evaluation_images(run: Run, *, data_dir: str | None = None, limit: int | None = None) -> Split:
    """The run's test split, or its first `limit` images.

    Raises:
        InputError: as `dataset_of`.
    """
    return dataset_of(run, data_dir).test.first(limit)
