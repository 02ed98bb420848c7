"""Mode `difference`: PGD on loss(artifact) - loss(checkpoint) and its negative, to find where the networks differ."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.verification.gradients import random_signs
from robust_edge.verification.paired_pgd import GradientOracle, PairedOutcome, paired_pgd, pgd_settings
from robust_edge.verification.probes import mixtures
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.subject import HostSubject
from robust_edge.verification.twins.twin import CHECKPOINT
from robust_edge_runtimes.modes.mode import Progress, part_of
from robust_edge_runtimes.scoring import Score
from robust_edge_runtimes.verdict.checks import APPROXIMATE_GAIN
from robust_edge_runtimes.verdict.flags import Check, raised
from robust_edge_runtimes.verdict.measurement import GRADIENTS, Candidates, Measurement
from robust_edge_runtimes.verdict.statistic import drop_of_counts

SIGNS = (1, -1)  # the difference of the losses and its negative are attacked, each with half of the steps
OTHER_IMAGES = 48  # training images, and as many mixtures
NEGLIGIBLE = 1e-3  # relative to both gradients: a difference that rounding explains
NEGLIGIBLE_LOSS = 1e-4
DIRECTIONS = 4  # random directions per step, if the artifact has no gradient
DIFFERENCE_STEP = 0.25  # of eps: length of a finite difference


def difference(subject: HostSubject, settings: VerifySettings, progress: Progress = None) -> Measurement:
    """Attack the drawn images, training images and mixtures, starting in the direction of the checkpoint's gradient.

    The training images and mixtures are attacked with the first block only, so that chance has one occasion to raise a
    flag on them. Both signs of the difference are attacked, so that neither network is attacked more strongly than the
    other. An image at which both networks have the same gradient is not moved further.
    """
    start, drawn, clean, checkpoint = time.monotonic(), subject.images, subject.clean, subject.checkpoint
    assert checkpoint is not None, "the mode's row says that it needs a run"
    random = np.random.default_rng((settings.seed, int(drawn.ids[0])))
    others, classes = _other_images(subject, random) if subject.span[0] == 0 else (drawn.images[:0], drawn.labels[:0])
    images, labels = np.concatenate([drawn.images, others]), np.concatenate([drawn.labels, classes])
    attack = pgd_settings(subject.eps, settings, runs=len(SIGNS))
    first = _random_starts(checkpoint, images, labels, subject.eps, random)
    sources = [_gradient_source(subject, sign, random) for sign in SIGNS]
    up, down = (
        paired_pgd(
            subject.score, source, images, labels, attack, start=first, progress=part_of(progress, part, len(sources))
        )
        for part, source in enumerate(sources)
    )
    both, count = up.joined(down), len(drawn)
    return Measurement(
        attack=attack,
        ids=drawn.ids,
        reference_clean=clean.reference,
        artifact_clean=clean.artifact,
        reference_robust=clean.reference & both.reference_right[:count],
        artifact_robust=clean.artifact & both.artifact_right[:count],
        works_with=GRADIENTS,
        flags=(*clean.flags, *raised(_elsewhere(subject, both, count) if len(others) else [])),
        seconds=time.monotonic() - start,
        candidates=Candidates(drawn.labels, tuple(points[:count] for points in both.worst)),
    )


def _other_images(subject: HostSubject, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Training images with their labels, and mixtures with the class that the checkpoint predicts."""
    assert subject.reference is not None
    training, labels = subject.training_images(OTHER_IMAGES, random)
    mixed = mixtures(training if len(training) else subject.images.images[:OTHER_IMAGES], random)
    return np.concatenate([training, mixed]), np.concatenate([labels, subject.reference(mixed).argmax(1)])


def _random_starts(
    checkpoint: GradientOracle, images: np.ndarray, labels: np.ndarray, eps: float, random: np.random.Generator
) -> np.ndarray:
    """Random points between each image and the corner of its ball that the checkpoint's gradient points to."""
    _, gradient = checkpoint.logits_and_gradient(images, labels)
    length = random.uniform(0, eps, (len(images), 1, 1, 1)).astype(np.float32)
    return np.asarray(images + length * np.sign(gradient))


def _gradient_source(subject: HostSubject, sign: int, random: np.random.Generator) -> GradientOracle:
    """The gradient of the difference of losses: from the twin, or by finite differences if there is no twin."""
    twin, _ = subject.twin.found
    assert subject.checkpoint is not None
    assert subject.reference is not None
    if twin is None or twin.made_from == CHECKPOINT:
        return _FiniteDifferences(subject.score, subject.reference, DIFFERENCE_STEP * subject.eps, sign, random)
    return _TwinGradients(TorchOracle(twin.network), subject.checkpoint, sign)


@dataclasses.dataclass(frozen=True, eq=False)
class _TwinGradients:
    """The gradient of the twin's loss minus that of the checkpoint's."""

    artifact: GradientOracle
    checkpoint: GradientOracle
    sign: int

    def logits_and_gradient(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The checkpoint's logits, and the gradient; it is zero where both networks' gradients agree up to rounding."""
        _, ours = self.artifact.logits_and_gradient(images, labels)
        logits, theirs = self.checkpoint.logits_and_gradient(images, labels)
        change = np.nan_to_num(ours - theirs)
        size = [np.abs(part).sum(axis=(1, 2, 3)) for part in (change, np.nan_to_num(ours), theirs)]
        change[size[0] <= NEGLIGIBLE * (size[1] + size[2])] = 0
        return logits, self.sign * change


@dataclasses.dataclass(frozen=True, eq=False)
class _FiniteDifferences:
    """Gradient estimates by simultaneous perturbation (Spall 1992): finite differences along random directions."""

    artifact: Score
    checkpoint: Score
    length: float
    sign: int
    random: np.random.Generator

    def logits_and_gradient(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The checkpoint's logits, and the estimate; zero where no direction changes the difference of losses."""
        slope = np.zeros_like(images)
        for _ in range(DIRECTIONS):
            signs = random_signs(images.shape, self.random)
            ahead, behind = (np.clip(images + side * np.float32(self.length) * signs, 0, 1) for side in (1, -1))
            change = self._loss_difference(ahead, labels) - self._loss_difference(behind, labels)
            change[~(np.abs(change) > NEGLIGIBLE_LOSS)] = 0
            slope += change.astype(np.float32)[:, None, None, None] * signs
        return self.checkpoint(images), self.sign * slope

    def _loss_difference(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray:
        ours, theirs = _loss(self.artifact(images), labels), _loss(self.checkpoint(images), labels)
        return np.asarray(ours - theirs)


def _loss(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) float64 cross-entropy."""
    wide = np.nan_to_num(logits.astype(np.float64))
    wide -= wide.max(axis=1, keepdims=True)
    loss: np.ndarray = np.log(np.exp(wide).sum(axis=1)) - wide[np.arange(len(labels)), labels]
    return loss


def _elsewhere(subject: HostSubject, outcome: PairedOutcome, count: int) -> list[Check]:
    """Whether the artifact gives other logits than the checkpoint, or loses more, on images after the first `count`."""
    ends = np.concatenate([points[count:] for points in outcome.worst])
    where = "points that mode difference reached from training images and mixtures"
    artifact, reference = outcome.artifact_right[count:], outcome.reference_right[count:]
    lost, gained = int((reference & ~artifact).sum()), int((artifact & ~reference).sum())
    detail = (
        f"of {len(artifact)} training images and mixtures mode difference broke {lost} for the artifact only, "
        f"{gained} for the checkpoint only"
    )
    found = Check("differs_elsewhere", drop_of_counts(lost, gained, len(artifact), APPROXIMATE_GAIN).exceeded, detail)
    return [*subject.compared(where, ends, subject.score(ends)), found]
