"""The images that a run was trained and judged on."""

from __future__ import annotations

import dataclasses

from robust_edge.data import Dataset, Split, load_dataset
from robust_edge.run.directory import Run
from robust_edge_runtimes.core.errors import InputError


def dataset_of(run: Run, data_dir: str | None = None) -> Dataset:
    """The run's data set.

    Args:
        run: a finished run.
        data_dir: where its images lie now, if elsewhere.

    Raises:
        InputError: the images found are not those of the run.
    """
    settings = run.config.data if data_dir is None else dataclasses.replace(run.config.data, dir=data_dir)
    dataset = load_dataset(settings)
    expected = run.checkpoint().dataset_fingerprint
    if dataset.fingerprint() != expected:
        raise InputError(
            f"the {dataset.name} images found now are not those that {run.path} was trained on; "
            "name their folder with --data-dir"
        )
    return dataset


def evaluation_images(run: Run, *, data_dir: str | None = None, limit: int | None = None) -> Split:
    """The run's test split, or its first `limit` images.

    Raises:
        InputError: as `dataset_of`.
    """
    return dataset_of(run, data_dir).test.first(limit)
