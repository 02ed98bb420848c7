"""What a verdict holds, and the statistic that it rests on; docs/verification.md says how far it sees."""

from __future__ import annotations

import dataclasses
import math
from typing import Optional, Sequence, Tuple

import numpy as np

from robust_edge_runtimes.core.environment import Machine
from robust_edge_runtimes.core.errors import InputError, unknown_name
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.core.runtime import RuntimeInfo

VERDICT_VERSION = 1
REPLAY, SURROGATE, WHITEBOX, BLACKBOX = "replay", "surrogate", "whitebox", "blackbox"
FLAGS = (
    "batch_dependent",
    "black_box_beats_white_box",
    "forged_answers",
    "more_robust_than_parent",
    "no_twin",
    "non_finite",
    "not_the_checkpoint",
    "randomised",
    "rounded_logits",
    "saturated_gradient",
    "scaled_logits",
    "softmax_output",
    "twin_differs",
    "zero_gradient",
)
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
        """The interval reaches over the budget: too few images to rule an excess out."""
        return self.low <= self.budget < self.high


@dataclasses.dataclass(frozen=True)
class Flag:
    """A reason why the figures may not mean what they say."""

    name: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Parity:
    """Distance of the artifact's logits from the checkpoint's on the golden images; a diagnostic."""

    max_logit_error: float
    tolerance: float
    argmax_agreement: float


@dataclasses.dataclass(frozen=True)
class Twin:
    """The differentiable copy of an artifact that a white-box attack climbed, and how like the artifact it is.

    Attributes:
        made_from: the artifact's own graph, or what stood in for it.
        max_logit_error: relative, on clean and attacked images.
        tolerance: largest error that is taken for rounding.
        argmax_agreement: fraction of these images with the same class.
        temperature: what the logits were divided by before the loss.
    """

    made_from: str
    max_logit_error: float
    tolerance: float
    argmax_agreement: float
    temperature: float


@dataclasses.dataclass(frozen=True)
class ModeResult:
    """One mode of attack: accuracies in [0, 1] of both networks on the same images and candidates.

    Attributes:
        paired: both networks met the same candidates; otherwise the checkpoint's figures are those stored in the
            bundle, which its own gradients made.
        twin: of the white-box mode.
        seconds: what the mode took.
    """

    mode: str
    attack: AttackSpec
    images: int
    reference_clean: float
    artifact_clean: float
    reference_robust: float
    artifact_robust: float
    clean_drop: Drop
    robust_drop: Drop
    flags: Tuple[Flag, ...] = ()
    paired: bool = True
    twin: Optional[Twin] = None
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class WorstCase:
    """All modes together: an image counts only if it was right in every one of them."""

    modes: Tuple[str, ...]
    images: int
    reference_clean: float
    artifact_clean: float
    reference_robust: float
    artifact_robust: float
    clean_drop: Drop
    robust_drop: Drop


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """What another machine found with the same artifact.

    Attributes:
        source: name of the file that it came from.
    """

    source: str
    runtime: RuntimeInfo
    machine: Machine
    parity: Parity
    modes: Tuple[ModeResult, ...]
    flags: Tuple[Flag, ...]
    worst: Optional[WorstCase] = None


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Pass or fail, and everything needed to check it again.

    Attributes:
        passed: no reason against it.
        reasons: why the gate failed, one line each.
        notes: what a reader should know although it does not fail the gate.
        worst: over all modes, where more than one was run on the same images.
        elsewhere: verdicts of other machines that were merged into this one.
    """

    passed: bool
    reasons: Tuple[str, ...]
    notes: Tuple[str, ...]
    target: str
    artifact_sha256: str
    checkpoint_sha256: str
    runtime: RuntimeInfo
    machine: Machine
    parity: Parity
    modes: Tuple[ModeResult, ...]
    flags: Tuple[Flag, ...]
    worst: Optional[WorstCase] = None
    elsewhere: Tuple[Elsewhere, ...] = ()
    schema_version: int = VERDICT_VERSION


@dataclasses.dataclass(frozen=True)
class Budget:
    """Points that the artifact may lose, and the flags that may be raised."""

    clean: float = 1.0
    robust: float = 1.0
    allowed_flags: Tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("clean", "robust"):
            value = getattr(self, name)
            if not 0 <= value <= 100:
                raise InputError(f"--max-{name}-drop is in percentage points, 0 to 100; {value} is not")
        for flag in self.allowed_flags:
            if flag not in FLAGS:
                raise unknown_name("flag", flag, FLAGS)


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """What one mode saw, image by image.

    Attributes:
        ids: (N,) int64, which images; the same number is the same image in every trial of a bundle. Golden
            images are numbered as stored, others from there on.
        reference_clean: (N,) bool, the checkpoint was right on the clean image.
        artifact_clean: the same for the artifact.
        reference_robust: (N,) bool, the checkpoint was right on the clean image and on every candidate.
        artifact_robust: the same for the artifact.
    """

    mode: str
    attack: AttackSpec
    ids: np.ndarray
    reference_clean: np.ndarray
    artifact_clean: np.ndarray
    reference_robust: np.ndarray
    artifact_robust: np.ndarray
    flags: Tuple[Flag, ...] = ()
    paired: bool = True
    twin: Optional[Twin] = None
    seconds: float = 0.0

    def result(self, budget: Budget) -> ModeResult:
        """The mode's accuracies and drops."""
        robust = paired_drop(self.reference_robust, self.artifact_robust, budget.robust)
        flags = self.flags
        # stored images were chosen against the checkpoint alone: whoever rounds a little differently holds more of them
        if self.paired and self.mode != REPLAY and robust.high < -budget.robust:
            gain = f"{-robust.points:.1f} points more robust than its own checkpoint in mode {self.mode}"
            flags = (*flags, Flag("more_robust_than_parent", f"{gain}: gradients are hidden, not harmless"))
        return ModeResult(
            mode=self.mode,
            attack=self.attack,
            images=len(self.ids),
            reference_clean=float(self.reference_clean.mean()),
            artifact_clean=float(self.artifact_clean.mean()),
            reference_robust=float(self.reference_robust.mean()),
            artifact_robust=float(self.artifact_robust.mean()),
            clean_drop=paired_drop(self.reference_clean, self.artifact_clean, budget.clean),
            robust_drop=robust,
            flags=flags,
            paired=self.paired,
            twin=self.twin,
            seconds=self.seconds,
        )


def paired_drop(reference: np.ndarray, artifact: np.ndarray, budget: float) -> Drop:
    """Points lost, with a 95% interval for paired proportions.

    Source: Agresti and Min 2005: the Wald interval for matched pairs after adding 1/2 to each of the
    four cells; it keeps its level where the two networks hardly ever differ.

    Args:
        reference: (N,) bool, the checkpoint was right; N at least 1.
        artifact: (N,) bool, the artifact was right on the same image.
        budget: points that may be lost.
    """
    n = len(reference)
    lost = int((reference & ~artifact).sum())
    gained = int((artifact & ~reference).sum())
    b, c, total = lost + 0.5, gained + 0.5, n + 2.0
    centre = (b - c) / total
    half = Z95 * math.sqrt(b + c - (b - c) ** 2 / total) / total
    return Drop(100 * (lost - gained) / n, 100 * (centre - half), 100 * (centre + half), budget)


def worst_case(trials: Sequence[Trial], budget: Budget) -> Optional[WorstCase]:
    """All paired trials together, image by image.

    The images are those that every mode attacked; where replay stored others, those that all the other modes
    attacked, with the stored answers of the images among them.

    Returns:
        None where there is only one trial, or no image in common.
    """
    paired = [trial for trial in trials if trial.paired]
    fresh = [trial for trial in paired if trial.mode != REPLAY] or paired
    if len(paired) < 2:
        return None
    common = fresh[0].ids
    for trial in fresh[1:]:
        common = np.intersect1d(common, trial.ids)
    if not len(common):
        return None
    columns = [_all_of(paired, common, name) for name in _COLUMNS]
    reference_clean, artifact_clean, reference_robust, artifact_robust = columns
    return WorstCase(
        modes=tuple(trial.mode for trial in paired),
        images=len(common),
        reference_clean=float(reference_clean.mean()),
        artifact_clean=float(artifact_clean.mean()),
        reference_robust=float(reference_robust.mean()),
        artifact_robust=float(artifact_robust.mean()),
        clean_drop=paired_drop(reference_clean, artifact_clean, budget.clean),
        robust_drop=paired_drop(reference_robust, artifact_robust, budget.robust),
    )


_COLUMNS = ("reference_clean", "artifact_clean", "reference_robust", "artifact_robust")


def _all_of(trials: Sequence[Trial], ids: np.ndarray, name: str) -> np.ndarray:
    """(len(ids),) bool: right in every trial that had the image."""
    right = np.ones(len(ids), bool)
    for trial in trials:
        _, here, there = np.intersect1d(ids, trial.ids, return_indices=True)
        right[here] &= getattr(trial, name)[there]
    return right
