"""Accuracies class by class, which those over all images hide where classes have different numbers of images."""

from __future__ import annotations

import dataclasses
from typing import Sequence, Tuple

import numpy as np

from robust_edge_runtimes.verdict.measurement import Measurement, judged_ids, right_in_all


@dataclasses.dataclass(frozen=True)
class ClassFigures:
    """The images of one class that both networks are right on, over all modes that the verdict judges.

    Attributes:
        images: number of images of the class, at least 1.
        reference_clean: number that the checkpoint is right on without an attack.
        artifact_clean: the same for the artifact.
        reference_robust: number that the checkpoint is right on under every attack, too.
        artifact_robust: the same for the artifact.
    """

    name: str
    images: int
    reference_clean: int
    artifact_clean: int
    reference_robust: int
    artifact_robust: int


COLUMNS = ("reference_clean", "artifact_clean", "reference_robust", "artifact_robust")


def figures_by_class(measurements: Sequence[Measurement], classes: Sequence[str]) -> Tuple[ClassFigures, ...]:
    """The figures of every class that has images, in the order of the logits; empty without a measurement.

    Args:
        measurements: of all modes; unpaired ones count only where no other is given.
        classes: their names.
    """
    judged = [item for item in measurements if item.paired] or list(measurements)
    judged = [item for item in judged if item.labels is not None]
    if not judged:
        return ()
    ids = judged_ids(judged)
    labels = np.zeros(len(ids), np.int64)
    for item in judged:
        assert item.labels is not None
        _, here, there = np.intersect1d(ids, item.ids, return_indices=True)
        labels[here] = item.labels[there]
    right = [right_in_all(judged, ids, column) for column in COLUMNS]
    return tuple(
        ClassFigures(name, int(own.sum()), *(int((column & own).sum()) for column in right))
        for name, own in ((name, labels == label) for label, name in enumerate(classes))
        if own.any()
    )


def balanced(figures: Sequence[ClassFigures], column: str) -> float:
    """The accuracy of a column, the mean over the classes, whatever their numbers of images."""
    return float(sum(getattr(item, column) / item.images for item in figures)) / len(figures)
