"""PGD against two networks at once, with gradients from wherever there are some; numpy, like the scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np

from robust_edge.verification.settings import VerifySettings
from robust_edge_runtimes.attacks.threat import step_size
from robust_edge_runtimes.core.logits import is_right
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.scoring import Score


class GradientOracle(Protocol):
    """A differentiable stand-in for an artifact: the checkpoint, or a twin of the artifact."""

    def logits_and_gradient(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, K), and the cross-entropy's gradient (N, C, H, W) with respect to `images`."""


@dataclasses.dataclass(frozen=True)
class PairedOutcome:
    """Which network stayed right on which image, on the same candidates.

    Attributes:
        artifact_right: (N,) bool, the artifact was right on the clean image and on every candidate.
        reference_right: (N,) bool, the same for the reference.
        zero_gradients: fraction of gradients, over all steps, that were zero, or no numbers, everywhere.
        last: (N, C, H, W) float32 in [0, 1], the last candidate of each image.
    """

    artifact_right: np.ndarray
    reference_right: np.ndarray
    zero_gradients: float
    last: np.ndarray


def pgd_settings(eps: float, settings: VerifySettings, restart: int) -> AttackSpec:
    """One restart of PGD; every mode takes another, so that together they are restarts of one attack."""
    return AttackSpec("pgd", eps, settings.steps, step_size(eps, settings.steps), settings.seed + restart)


def paired_pgd(
    score: Score,
    oracle: GradientOracle,
    images: np.ndarray,
    labels: np.ndarray,
    attack: AttackSpec,
    *,
    reference: Score | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PairedOutcome:
    """PGD on an artifact that has no gradients: its scores, the oracle's gradients at the same points.

    Source: Marshall 2020, Eq. (3); gradients by backward pass differentiable approximation
    (Athalye, Carlini, Wagner 2018). Every iterate is a candidate, for the artifact and for the reference.

    Args:
        score: the artifact.
        oracle: where the gradients come from.
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64.
        attack: ε, steps, step size and seed.
        reference: the network that the artifact is compared with; None for the oracle's own.
        progress: called with (steps done, steps in all).
    """
    random = np.random.default_rng(attack.seed)
    artifact_right = is_right(score(images), labels)
    expected = oracle.logits_and_gradient(images, labels)[0] if reference is None else reference(images)
    reference_right = is_right(expected, labels)
    low, high = np.maximum(images - attack.eps, 0), np.minimum(images + attack.eps, 1)
    noise = random.uniform(-attack.eps, attack.eps, images.shape)
    candidate = np.clip(images + noise, low, high).astype(np.float32)
    zero, seen = 0, 0
    for step in range(attack.steps + 1):
        if progress is not None and step < attack.steps:
            progress(step, attack.steps)
        open_rows = np.flatnonzero(artifact_right | reference_right)
        if not len(open_rows):
            break
        points, truth = candidate[open_rows], labels[open_rows]
        logits, gradient = oracle.logits_and_gradient(points, truth)
        artifact_right[open_rows] &= is_right(score(points), truth)
        reference_right[open_rows] &= is_right(logits if reference is None else reference(points), truth)
        direction = np.sign(np.nan_to_num(gradient))  # logits that overflow have no gradient, and no step to take
        zero += int((direction == 0).all(axis=(1, 2, 3)).sum())
        seen += len(open_rows)
        stepped = points + np.float32(attack.step_size) * direction  # Eq. (3)
        candidate[open_rows] = np.clip(stepped, low[open_rows], high[open_rows])
    if progress is not None:
        progress(attack.steps, attack.steps)
    return PairedOutcome(artifact_right, reference_right, zero / max(seen, 1), candidate)
