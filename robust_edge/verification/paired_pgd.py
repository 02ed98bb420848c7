"""PGD against an artifact and its reference at once, with the gradients of a separate oracle."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Protocol

import numpy as np

from robust_edge.attacks.pgd import Pgd
from robust_edge.verification.settings import STEPS_OPTION, VerifySettings
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.logits import is_right
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.scoring import Score, margins


class GradientOracle(Protocol):
    """A source of gradients for an artifact that has none: the checkpoint, or a twin of the artifact."""

    def logits_and_gradient(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, K), and the cross-entropy's gradient (N, C, H, W) with respect to `images`."""


@dataclasses.dataclass(frozen=True)
class PairedOutcome:
    """On which images each network was right, for the same candidates.

    Attributes:
        artifact_right: (N,) bool, the artifact was right on the clean image and on every candidate.
        reference_right: (N,) bool, the same for the reference.
        zero_gradients: fraction of gradients, over all steps, that were zero or NaN at every pixel.
        worst: for the artifact and for the reference, (N, C, H, W) float32 in [0, 1]: each image's candidate with the
            smallest margin.
    """

    artifact_right: np.ndarray
    reference_right: np.ndarray
    zero_gradients: float
    worst: tuple[np.ndarray, np.ndarray]

    def joined(self, other: PairedOutcome) -> PairedOutcome:
        """Combine with another attack on the same images; the worst points of the reference are those of `other`."""
        return PairedOutcome(
            self.artifact_right & other.artifact_right,
            self.reference_right & other.reference_right,
            self.zero_gradients,
            (self.worst[0], other.worst[1]),
        )


def pgd_settings(eps: float, settings: VerifySettings, *, runs: int = 1) -> AttackSpec:
    """One restart of PGD with a mode's seed; a mode that attacks in several runs divides its steps among them."""
    return Pgd(steps=math.ceil(settings.value(STEPS_OPTION) / runs)).spec(Threat(eps), settings.seed)


def paired_pgd(
    score: Score,
    oracle: GradientOracle,
    images: np.ndarray,
    labels: np.ndarray,
    attack: AttackSpec,
    *,
    reference: Score | None = None,
    start: np.ndarray | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PairedOutcome:
    """Attack an artifact that has no gradients by PGD, with the oracle's gradients at the same points.

    Source: Marshall 2020, Eq. (3); gradients by backward pass differentiable approximation
    (Athalye, Carlini, Wagner 2018). Every iterate is a candidate, for the artifact and for the reference. An image
    whose gradient is zero stays where it is and is not scored again.

    Args:
        score: the artifact, as a function from images to logits.
        oracle: the source of gradients.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64.
        attack: ε, steps, step size and seed.
        reference: the network that the artifact is compared with; None for the oracle's network.
        start: (N, C, H, W), the first candidates; None for uniform noise drawn by the attack's seed.
        progress: called with (steps done, all steps).
    """
    random = np.random.default_rng(attack.seed)
    artifact_right = is_right(score(images), labels)
    expected = oracle.logits_and_gradient(images, labels)[0] if reference is None else reference(images)
    reference_right = is_right(expected, labels)
    low, high = np.maximum(images - attack.eps, 0), np.minimum(images + attack.eps, 1)
    if start is None:
        start = images + random.uniform(-attack.eps, attack.eps, images.shape)
    candidate = np.clip(start, low, high).astype(np.float32)
    worst = _Worst(candidate), _Worst(candidate)
    stuck = np.zeros(len(images), bool)
    zero, seen = 0, 0
    for step in range(attack.steps + 1):
        if progress is not None and step < attack.steps:
            progress(step, attack.steps)
        open_rows = np.flatnonzero(artifact_right | reference_right)
        if not len(open_rows):
            break
        rows = open_rows[~stuck[open_rows]]
        if len(rows):
            points, truth = candidate[rows], labels[rows]
            logits, gradient = oracle.logits_and_gradient(points, truth)
            artifact_right[rows] &= worst[0].update(rows, points, score(points), truth)
            expected = logits if reference is None else reference(points)
            reference_right[rows] &= worst[1].update(rows, points, expected, truth)
            direction = np.sign(np.nan_to_num(gradient))  # logits that overflow have no gradient, and no step to take
            stuck[rows] = (direction == 0).all(axis=(1, 2, 3))
            stepped = points + np.float32(attack.step_size) * direction  # Eq. (3)
            candidate[rows] = np.clip(stepped, low[rows], high[rows])
        zero += int(stuck[open_rows].sum())
        seen += len(open_rows)
    if progress is not None:
        progress(attack.steps, attack.steps)
    return PairedOutcome(artifact_right, reference_right, zero / max(seen, 1), (worst[0].points, worst[1].points))


class _Worst:
    """Each image's candidate with the smallest margin so far."""

    def __init__(self, first: np.ndarray) -> None:
        self.points = first.copy()
        self._lowest = np.full(len(first), np.inf)

    def update(self, rows: np.ndarray, points: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Update the worst points of some images; returns (len(rows),) bool, which candidates are right."""
        margin = margins(logits, labels)
        lower = margin < self._lowest[rows]
        self.points[rows[lower]], self._lowest[rows[lower]] = points[lower], margin[lower]
        return is_right(logits, labels)
