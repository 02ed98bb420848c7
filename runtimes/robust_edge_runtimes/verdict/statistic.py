"""The loss of accuracy from checkpoint to artifact on the same images: its interval, and when to stop drawing images.

The number of images is not fixed in advance. At each interim test, called a look, the interval is compared with the
budget, at a level that `level_of_look` takes from a total of ERROR: the chance of passing an artifact whose true loss
is the budget or more is at most 2.5% over all looks. That one drop of an artifact within the budget is found to exceed
it is as rare, or up to twice as likely where the true loss is close to the budget and few images are lost. Four drops
can fail a verdict, those of clean and robust accuracy on the drawn images and on the stored ones of `replay`, which are
another sample: where all are close to the budget, failing is up to four times as likely as by one drop.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from statistics import NormalDist
from typing import Optional, Tuple

import numpy as np

MIN_IMAGES = 50
FIRST_LOOK = 500
ERROR = 0.0215
"""Nominal error of each end of the interval, over all looks.

The score interval holds its level on average. Where fewer than 500 images are drawn, of which a few are lost or gained,
the exact chance of passing an artifact that loses the budget is up to a sixth larger than the nominal one; it is
at most 2.5% at this one.
"""
MOST_IMAGES = 1 << 30


@dataclasses.dataclass(frozen=True)
class Drop:
    """Points of accuracy lost from checkpoint to artifact on the same images.

    Attributes:
        points: percentage points lost; negative where the artifact is better.
        low: lower end of the confidence interval.
        high: its upper end.
        budget: points that may be lost.
        lost: images on which only the checkpoint was right.
        gained: images on which only the artifact was right.
    """

    points: float
    low: float
    high: float
    budget: float
    lost: float = 0
    gained: float = 0

    @property
    def exceeded(self) -> bool:
        """Whether the loss is larger than the budget, beyond chance."""
        return self.low > self.budget

    @property
    def undecided(self) -> bool:
        """Whether the budget lies inside the interval, so that more images are needed to decide."""
        return self.low <= self.budget < self.high


def looks(images: int) -> Tuple[int, ...]:
    """The numbers of images of the interim tests (looks): 500, 1,000, 2,000, ..., and all."""
    counts = []
    count = FIRST_LOOK
    while count < images:
        counts.append(count)
        count *= 2
    return (*counts, images)


def level_of_look(look: int, *, last: bool) -> float:
    """The one-sided error of an interim test (look): half of the remaining error, all of it in the last one.

    Args:
        look: 1 for the first.
        last: whether there are no more images to draw.
    """
    return float(ERROR * 0.5 ** (look - 1 if last else look))


def paired_drop(reference: np.ndarray, artifact: np.ndarray, budget: float, level: float = ERROR) -> Drop:
    """Points lost between two networks that were given the same images.

    Args:
        reference: (N,) bool, the checkpoint was right; N at least 1.
        artifact: (N,) bool, the artifact was right on the same image.
        budget: points that may be lost.
        level: probability that an end of the interval lies on the wrong side of the truth, of each end.
    """
    lost, gained = int((reference & ~artifact).sum()), int((artifact & ~reference).sum())
    return drop_of_counts(lost, gained, len(reference), budget, level)


def drop_of_counts(lost: float, gained: float, images: float, budget: float, level: float = ERROR) -> Drop:
    """Points lost, with Tango's score interval.

    Args:
        lost: images on which only the checkpoint was right.
        gained: images on which only the artifact was right.
        images: all images, at least 1.
        budget: points that may be lost.
        level: as in `paired_drop`.
    """
    low, high = score_interval(lost, gained, images, level)
    return Drop(100 * (lost - gained) / images, 100 * low, 100 * high, budget, lost, gained)


@functools.lru_cache(maxsize=1 << 12)
def score_interval(lost: float, gained: float, images: float, level: float) -> Tuple[float, float]:
    """The differences of two paired proportions that the counts do not contradict at a one-sided level.

    Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design", Statistics in Medicine 17. The score statistic falls with the difference, so that each end is
    found by bisection.

    Args:
        lost, gained, images: as in `drop_of_counts`.
        level: in (0, 1/2).

    Returns:
        Both ends, fractions in [-1, 1].
    """
    critical = NormalDist().inv_cdf(1 - level)
    return _root(lost, gained, images, critical), _root(lost, gained, images, -critical)


def binomial_tail(count: int, trials: int, share: float) -> float:
    """The chance that at least `count` of `trials` succeed, each with the probability `share`."""
    if not 0 < share < 1:
        return float(count <= (trials if share else 0))

    def log_chance(k: int) -> float:
        ways = math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)  # comb overflows a float
        return ways + k * math.log(share) + (trials - k) * math.log1p(-share)

    return min(1.0, math.fsum(math.exp(log_chance(k)) for k in range(count, trials + 1)))


def images_to_decide(drop: Drop, images: int) -> Optional[int]:
    """How many images would decide an undecided drop, if lost and gained images went on at the rates seen so far.

    Args:
        drop: at the last look, with its counts.
        images: how many they are of.

    Returns:
        The number of images in all, rounded up to two digits; None where the observed drop is the budget itself, or
        too close to it.
    """
    if not drop.undecided:
        return images
    factor = 2.0
    while _undecided(drop, images, factor):
        factor *= 2
        if images * factor > MOST_IMAGES:
            return None
    low, high = factor / 2, factor
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if _undecided(drop, images, middle) else (low, middle)
    count = math.ceil(images * high)
    step = int(10 ** max(len(str(count)) - 2, 0))
    return -(-count // step) * step


def budget_shown(drop: Drop) -> float:
    """The smallest budget, in tenths of a point, that the images of this drop show to be kept: at most 100."""
    return math.ceil(10 * drop.high) / 10


def _undecided(drop: Drop, images: int, factor: float) -> bool:
    """Whether `factor` times as many images, at the same rates, would leave the drop undecided."""
    return drop_of_counts(drop.lost * factor, drop.gained * factor, images * factor, drop.budget).undecided


def _root(lost: float, gained: float, images: float, value: float) -> float:
    """The difference at which the score statistic is `value`."""
    low, high = -1.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _score(lost, gained, images, middle) > value else (low, middle)
    return (low + high) / 2


def _score(lost: float, gained: float, images: float, difference: float) -> float:
    """Tango's statistic of a supposed difference; its variance has the gained share that is likeliest under it."""
    linear = (2 * images - lost + gained) * difference - lost - gained
    constant = -gained * difference * (1 - difference)
    gained_share = (math.sqrt(max(linear * linear - 8 * images * constant, 0.0)) - linear) / (4 * images)
    variance = images * (2 * gained_share + difference * (1 - difference))
    excess = lost - gained - images * difference
    if variance <= 0:
        return math.copysign(math.inf, excess) if excess else 0.0
    return excess / math.sqrt(variance)
