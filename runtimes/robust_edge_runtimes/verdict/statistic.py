"""The loss of accuracy from checkpoint to artifact on the same images, with its confidence interval."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

MIN_IMAGES = 50
Z95 = 1.959964


@dataclasses.dataclass(frozen=True)
class Drop:
    """Points of accuracy lost from checkpoint to artifact on the same images.

    Attributes:
        points: percentage points lost; negative where the artifact is better.
        low: lower end of the 95% confidence interval.
        high: its upper end.
        budget: points that may be lost.
    """

    points: float
    low: float
    high: float
    budget: float

    @property
    def exceeded(self) -> bool:
        """The loss is larger than the budget, beyond chance."""
        return self.low > self.budget

    @property
    def undecided(self) -> bool:
        """The budget lies inside the interval: there are too few images to rule an excess out."""
        return self.low <= self.budget < self.high


def paired_drop(reference: np.ndarray, artifact: np.ndarray, budget: float) -> Drop:
    """Points lost between two networks that were given the same images.

    Args:
        reference: (N,) bool, the checkpoint was right; N at least 1.
        artifact: (N,) bool, the artifact was right on the same image.
        budget: points that may be lost.
    """
    lost, gained = int((reference & ~artifact).sum()), int((artifact & ~reference).sum())
    return drop_of_counts(lost, gained, len(reference), budget)


def drop_of_counts(lost: int, gained: int, images: int, budget: float) -> Drop:
    """Points lost, with a 95% interval for paired proportions.

    Source: Agresti and Min 2005: the Wald interval for matched pairs after adding 1/2 to each of the
    four cells; it keeps its level where the two networks hardly ever differ.

    Args:
        lost: images on which only the checkpoint was right.
        gained: images on which only the artifact was right.
        images: all images, at least 1.
        budget: points that may be lost.
    """
    b, c, total = lost + 0.5, gained + 0.5, images + 2.0
    centre = (b - c) / total
    half = Z95 * math.sqrt(b + c - (b - c) ** 2 / total) / total
    return Drop(100 * (lost - gained) / images, 100 * (centre - half), 100 * (centre + half), budget)
