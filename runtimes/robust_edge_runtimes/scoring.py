"""Functions of logits: margins, agreement, and the error relative to other logits."""

from __future__ import annotations

from typing import Callable

import numpy as np

from robust_edge_runtimes.core.batches import in_batches
from robust_edge_runtimes.core.closeness import number_above, relative_errors
from robust_edge_runtimes.core.runtime import BaseRuntime

Score = Callable[[np.ndarray], np.ndarray]
"""(N, C, H, W) float32 in [0, 1] to (N, K) logits."""

BATCH = 128
LARGE_BATCH = 32  # images of a fixed batch; from there on, fewer calls repeat images, since each call fills the batch
LEAST_REPEATS = 4  # calls that repeat images, however large the fixed batch is
TIE = 1e-6
"""Difference between two logits, relative to the largest of all, that the rounding of fp32 may make or remove."""


def score_of(model: BaseRuntime) -> Score:
    """The artifact as a function of any number of images, whatever batch size it was exported for.

    An artifact without a fixed batch size is called with at most BATCH images at a time, which bounds its memory.
    """
    if model.manifest.input.shape[0] is None:
        return lambda images: in_batches(model.infer, images, BATCH)
    return model.infer_all


def repeats(model: BaseRuntime, most: int) -> int:
    """How many calls repeat images in other batches.

    Args:
        model: its fixed batch, if it has one, is filled in each call.
        most: calls for a fixed batch of at most LARGE_BATCH images, or for none; for larger ones as many fewer, so that
            the number of images in all calls stays the same, but at least LEAST_REPEATS.
    """
    return max(LEAST_REPEATS, min(most, most * LARGE_BATCH // (model.manifest.input.shape[0] or 1)))


def agreement(logits: np.ndarray, expected: np.ndarray) -> float:
    """Fraction of the images for which both logits give the same class, or classes whose expected logits are tied.

    Logits that saturate, such as those of a tanh, tie exactly in one arithmetic and by a last digit in another.
    """
    rows, given, right = np.arange(len(expected)), logits.argmax(1), expected.argmax(1)
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        tied = expected[rows, right] - expected[rows, given] <= TIE * largest
    return float(((given == right) | tied).mean())


def margins(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) logit of the true class minus the largest other logit; −∞ if a logit is NaN or infinite.

    It is negative for misclassified images.
    """
    rows = np.arange(len(labels))
    others = logits.copy()
    others[rows, labels] = -np.inf
    with np.errstate(invalid="ignore"):
        lead = logits[rows, labels] - others.max(1)
    finite = np.isfinite(logits).all(1)
    result: np.ndarray = np.where(finite, lead, -np.inf)
    return result


def surest(logits: np.ndarray) -> np.ndarray:
    """(N,) bool: the half of the images whose largest logits lead by most; on the others rounding decides the class."""
    lead = margins(logits, logits.argmax(1))
    chosen: np.ndarray = lead >= np.median(lead)
    return chosen


def relative_error(logits: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference, divided by `logit_scale` of the expected logits; NaN if a difference is."""
    return float(relative_errors(logits, expected).max())


def share_above(tolerance: float, logits: np.ndarray, expected: np.ndarray) -> float:
    """Share of the images whose relative error exceeds `tolerance`, as NaN does."""
    return number_above(relative_errors(logits, expected), tolerance) / len(expected)
