"""The verdict: is the artifact still right, and still right under attack, as its checkpoint was?

Every image is judged twice, by the checkpoint and by the artifact, on the same candidates; the gate looks
at the paired difference. An image counts as robust only if it is right when clean and under every candidate.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Callable, List, Optional, Sequence, Tuple

import numpy as np

from robust_edge_runtimes.attacks import GradientOracle, is_right, surrogate_pgd
from robust_edge_runtimes.bundle import Bundle, Golden
from robust_edge_runtimes.environment import Machine, machine
from robust_edge_runtimes.errors import BundleError, InputError, unknown_name
from robust_edge_runtimes.latency import relative_error
from robust_edge_runtimes.manifest import AttackSpec
from robust_edge_runtimes.runtime import BaseRuntime, RuntimeInfo

REPLAY = "replay"
SURROGATE = "surrogate"
MODES = (REPLAY, SURROGATE)
FLAGS = ("more_robust_than_parent", "non_finite", "not_the_checkpoint", "randomised", "zero_gradient")
MIN_IMAGES = 50
BATCH = 128
REPEAT_TOLERANCE = 1e-4
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
class ModeResult:
    """One mode of attack: accuracies in [0, 1] of both networks on the same images and candidates."""

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


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Pass or fail, and everything needed to check it again.

    Attributes:
        passed: no reason against it.
        reasons: why the gate failed, one line each.
        notes: what a reader should know although it does not fail the gate.
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


def replay(
    model: BaseRuntime, golden: Golden, attack: AttackSpec, budget: Budget, limit: Optional[int] = None
) -> ModeResult:
    """The bundle's stored attack images, scored by the artifact.

    Raises:
        InputError: a limit below 1.
        BundleError: an attack image lies outside the ball that the manifest names.
    """
    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} images checks nothing; give at least 1")
    reach = float(np.abs(golden.attacked - golden.clean).max())
    if not reach <= attack.eps + 1e-6:
        raise BundleError(f"golden.npz: an attack image moves {reach:.4g} from its clean one, eps is {attack.eps:.4g}")
    n = len(golden.labels) if limit is None else min(limit, len(golden.labels))
    labels = golden.labels[:n]
    clean = is_right(_score(model, golden.clean[:n]), labels)
    attacked = is_right(_score(model, golden.attacked[:n]), labels)
    reference_clean = is_right(golden.clean_logits[:n], labels)
    reference_attacked = is_right(golden.attacked_logits[:n], labels)
    return _mode_result(
        REPLAY,
        attack,
        budget,
        reference_clean,
        clean,
        reference_clean & reference_attacked,
        clean & attacked,
        (),
    )


def surrogate(
    model: BaseRuntime,
    oracle: GradientOracle,
    images: np.ndarray,
    labels: np.ndarray,
    attack: AttackSpec,
    budget: Budget,
    *,
    tolerance: Optional[float] = None,
    progress: Optional[Callable[[int, int], None]] = None,
) -> ModeResult:
    """PGD with the artifact's scores and the checkpoint's gradients at the same points.

    Args:
        images: (N, C, H, W) float32 in [0, 1].
        labels: (N,) int64.
        tolerance: largest logit error, relative, of a faithful artifact on `images`; None does not compare. Unlike
            the golden logits, these come from the checkpoint itself, which a forged bundle cannot rewrite.
        progress: called with (steps done, steps in all).
    """
    if not len(images):
        raise InputError("there are no images to attack; give at least 1")
    outcome = surrogate_pgd(lambda batch: _score(model, batch), oracle, images, labels, attack, progress=progress)
    logits, expected = _score(model, images), oracle.logits_and_gradient(images, labels)[0]
    clean, reference_clean = is_right(logits, labels), is_right(expected, labels)
    flags: Tuple[Flag, ...] = ()
    error = relative_error(logits, expected)
    if tolerance is not None and not error <= tolerance:
        agreement = float((logits.argmax(1) == expected.argmax(1)).mean())
        flags = (_not_the_checkpoint("test images", error, tolerance, agreement),)
    if outcome.zero_gradients > 0.1:
        share = f"{100 * outcome.zero_gradients:.0f}% of the gradients were zero"
        flags = (*flags, Flag("zero_gradient", f"{share}: the attack was blind there"))
    return _mode_result(
        SURROGATE,
        attack,
        budget,
        reference_clean,
        clean,
        outcome.reference_right,
        outcome.artifact_right,
        flags,
    )


def parity_of(model: BaseRuntime, golden: Golden) -> Parity:
    """Compare logits on the clean and the attacked golden images."""
    logits = np.concatenate([_score(model, golden.clean), _score(model, golden.attacked)])
    expected = np.concatenate([golden.clean_logits, golden.attacked_logits])
    agreement = float((logits.argmax(1) == expected.argmax(1)).mean())
    error = relative_error(logits, expected)
    return Parity(error if math.isfinite(error) else 1e308, golden.tolerance, agreement)


def judge(bundle: Bundle, model: BaseRuntime, modes: Sequence[ModeResult], budget: Budget) -> Verdict:
    """Weigh all modes and flags.

    Args:
        bundle: the one under test.
        model: its open runtime.
        modes: at least one; an empty list fails, since nothing was checked.
        budget: what may be lost.
    """
    golden = bundle.golden()
    parity = parity_of(model, golden)
    flags = (*_artifact_flags(model, golden, parity), *(flag for mode in modes for flag in mode.flags))
    reasons = [reason for mode in modes for reason in _reasons(mode)]
    reasons += [f"{flag.name}: {flag.detail}" for flag in flags if flag.name not in budget.allowed_flags]
    if not modes:
        reasons.append("nothing_checked: no mode was run")
    notes = [note for mode in modes for note in _notes(mode)]
    notes += [f"allowed {flag.name}: {flag.detail}" for flag in flags if flag.name in budget.allowed_flags]
    return Verdict(
        passed=not reasons,
        reasons=tuple(reasons),
        notes=tuple(notes),
        target=bundle.manifest.target,
        artifact_sha256=bundle.manifest.artifact.identity,
        checkpoint_sha256=bundle.manifest.source.checkpoint_sha256,
        runtime=model.info,
        machine=machine(),
        parity=parity,
        modes=tuple(modes),
        flags=tuple(flags),
    )


def _score(model: BaseRuntime, images: np.ndarray) -> np.ndarray:
    fixed = model.manifest.input.shape[0]
    if fixed is None:
        return np.concatenate([model.infer(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])
    filled = images[np.minimum(np.arange(-(-len(images) // fixed) * fixed), len(images) - 1)]
    return np.concatenate([model.infer(filled[i : i + fixed]) for i in range(0, len(filled), fixed)])[: len(images)]


def _mode_result(
    mode: str,
    attack: AttackSpec,
    budget: Budget,
    reference_clean: np.ndarray,
    artifact_clean: np.ndarray,
    reference_robust: np.ndarray,
    artifact_robust: np.ndarray,
    flags: Tuple[Flag, ...],
) -> ModeResult:
    robust = paired_drop(reference_robust, artifact_robust, budget.robust)
    if robust.high < -budget.robust:
        gain = f"{-robust.points:.1f} points more robust than its own checkpoint in mode {mode}"
        flags = (*flags, Flag("more_robust_than_parent", f"{gain}: gradients are hidden, not harmless"))
    return ModeResult(
        mode=mode,
        attack=attack,
        images=len(reference_clean),
        reference_clean=float(reference_clean.mean()),
        artifact_clean=float(artifact_clean.mean()),
        reference_robust=float(reference_robust.mean()),
        artifact_robust=float(artifact_robust.mean()),
        clean_drop=paired_drop(reference_clean, artifact_clean, budget.clean),
        robust_drop=robust,
        flags=flags,
    )


def _reasons(mode: ModeResult) -> List[str]:
    reasons = []
    if mode.images < MIN_IMAGES:
        reasons.append(f"too_few_images: {mode.mode} checked {mode.images}, at least {MIN_IMAGES} are needed")
    for name, drop in (("clean", mode.clean_drop), ("robust", mode.robust_drop)):
        if drop.exceeded:
            reasons.append(
                f"{name}_drop: {drop.points:.1f} points in mode {mode.mode} (95% interval {drop.low:.1f} to "
                f"{drop.high:.1f}), budget {drop.budget:g}"
            )
    return reasons


def _notes(mode: ModeResult) -> List[str]:
    return [
        f"{mode.images} images in mode {mode.mode} cannot rule out a {name} drop of up to {drop.high:.1f} points"
        for name, drop in (("clean", mode.clean_drop), ("robust", mode.robust_drop))
        if drop.undecided
    ]


def _artifact_flags(model: BaseRuntime, golden: Golden, parity: Parity) -> List[Flag]:
    flags = []
    first, second = _score(model, golden.clean), _score(model, golden.clean)
    if not np.isfinite(first).all():
        flags.append(Flag("non_finite", "the artifact's logits hold NaN or infinity"))
    elif not relative_error(second, first) <= REPEAT_TOLERANCE:  # written so that NaN is flagged too
        flags.append(Flag("randomised", "the same images gave other logits the second time"))
    if not parity.max_logit_error <= parity.tolerance:
        where = "golden images"
        flags.append(_not_the_checkpoint(where, parity.max_logit_error, parity.tolerance, parity.argmax_agreement))
    return flags


def _not_the_checkpoint(images: str, error: float, tolerance: float, agreement: float) -> Flag:
    return Flag(
        "not_the_checkpoint",
        f"on the {images} logits differ from the checkpoint's by {error:.2g} (relative), tolerance {tolerance:.2g}; "
        f"classes agree on {100 * agreement:.1f}%",
    )
