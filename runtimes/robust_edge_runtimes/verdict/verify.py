"""The verdict: is the artifact still right, and still right under attack, as its checkpoint was?

Every image is judged twice, by the checkpoint and by the artifact, on the same candidates; the gate looks
at the paired difference. An image counts as robust only if it is right when clean and under every candidate.
"""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Callable, List, Optional, Sequence, Tuple, Union

import numpy as np

from robust_edge_runtimes.attacks.pgd import GradientOracle, surrogate_pgd
from robust_edge_runtimes.attacks.square import Square, square_attack
from robust_edge_runtimes.core.bundle import Bundle, Golden
from robust_edge_runtimes.core.environment import machine
from robust_edge_runtimes.core.errors import BundleError, InputError
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.scoring import Score, is_right, relative_error, score_of, share_above
from robust_edge_runtimes.verdict.fresh import Fresh
from robust_edge_runtimes.verdict.outputs import not_the_checkpoint, output_flags, repeat_flags
from robust_edge_runtimes.verdict.verdict import (
    BLACKBOX,
    FLAGS,
    MIN_IMAGES,
    REPLAY,
    SURROGATE,
    WHITEBOX,
    Budget,
    Drop,
    Elsewhere,
    Flag,
    ModeResult,
    Parity,
    Trial,
    Verdict,
    WorstCase,
    paired_drop,
    worst_case,
)

__all__ = [
    "BLACKBOX",
    "DEVICE_MODES",
    "FLAGS",
    "MIN_IMAGES",
    "MODES",
    "REPLAY",
    "SURROGATE",
    "WHITEBOX",
    "Budget",
    "Drop",
    "Flag",
    "ModeResult",
    "Parity",
    "Trial",
    "Verdict",
    "blackbox",
    "judge",
    "paired_drop",
    "parity_of",
    "replay",
    "surrogate",
]

MODES = (REPLAY, SURROGATE, WHITEBOX, BLACKBOX)
DEVICE_MODES = (REPLAY, BLACKBOX)
BLIND = 0.1  # of the gradients
GAIN = 1.0  # points that a black box may win over the white boxes by luck

Progress = Callable[[int, int], None]


def replay(model: BaseRuntime, golden: Golden, attack: AttackSpec, limit: Optional[int] = None) -> Trial:
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
    start = time.monotonic()
    n = len(golden.labels) if limit is None else min(limit, len(golden.labels))
    score, labels = score_of(model), golden.labels[:n]
    clean = is_right(score(golden.clean[:n]), labels)
    attacked = is_right(score(golden.attacked[:n]), labels)
    reference_clean, reference_robust = stored_answers(golden, np.arange(n))
    return Trial(
        REPLAY,
        attack,
        np.arange(n),
        reference_clean,
        clean,
        reference_robust,
        clean & attacked,
        seconds=time.monotonic() - start,
    )


def stored_answers(golden: Golden, ids: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Where the checkpoint was right, as the bundle stores it: on clean images, and on their attacked ones too."""
    labels = golden.labels[ids]
    clean = is_right(golden.clean_logits[ids], labels)
    return clean, clean & is_right(golden.attacked_logits[ids], labels)


def surrogate(
    model: BaseRuntime,
    oracle: GradientOracle,
    fresh: Fresh,
    attack: AttackSpec,
    *,
    tolerance: Optional[float] = None,
    strays: float = 0.0,
    progress: Optional[Progress] = None,
) -> Trial:
    """PGD with the artifact's scores and the checkpoint's gradients at the same points.

    Args:
        model: the artifact's open runtime.
        oracle: the checkpoint.
        fresh: the images.
        attack: ε, steps, step size and seed.
        tolerance: largest logit error, relative, of a faithful artifact on the images, clean and attacked; None does
            not compare. Unlike the golden logits, these come from the checkpoint itself, which a forged bundle cannot
            rewrite.
        strays: share of the images that may be further off than that.
        progress: called with (steps done, steps in all).
    """
    _refuse_none(fresh)
    start, score, labels = time.monotonic(), score_of(model), fresh.labels
    outcome = surrogate_pgd(score, oracle, fresh.images, labels, attack, progress=progress)
    logits = score(fresh.probes)
    clean, flags = is_right(logits, labels), repeat_flags(score, fresh.probes, logits)
    reference_clean = is_right(oracle.logits_and_gradient(fresh.probes, labels)[0], labels)
    if tolerance is not None:
        flags += _unlike(score, oracle, fresh, outcome.last, tolerance, strays)
    if outcome.zero_gradients > BLIND:
        share = f"{100 * outcome.zero_gradients:.0f}% of the gradients were zero"
        flags.append(Flag("zero_gradient", f"{share}: the attack was blind there"))
    return Trial(
        SURROGATE,
        attack,
        fresh.ids,
        reference_clean,
        clean,
        reference_clean & outcome.reference_right,
        clean & outcome.artifact_right,
        tuple(flags),
        seconds=time.monotonic() - start,
    )


def _unlike(
    score: Score, oracle: GradientOracle, fresh: Fresh, attacked: np.ndarray, tolerance: float, strays: float
) -> List[Flag]:
    """A flag for the clean and one for the attacked images, where the artifact's logits are not the checkpoint's."""
    flags = []
    for name, images in (("test images", fresh.probes), ("attacked test images", attacked)):
        logits, expected = score(images), oracle.logits_and_gradient(images, fresh.labels)[0]
        if not share_above(tolerance, logits, expected) <= strays:
            agreement = float((logits.argmax(1) == expected.argmax(1)).mean())
            flags.append(not_the_checkpoint(name, relative_error(logits, expected), tolerance, agreement))
    return flags


def blackbox(
    model: BaseRuntime,
    fresh: Fresh,
    attack: AttackSpec,
    reference: Union[Score, Golden],
    *,
    progress: Optional[Progress] = None,
) -> Trial:
    """Square on the artifact's logits, of `attack.steps` queries.

    Args:
        model: the artifact's open runtime.
        fresh: the images.
        attack: ε, queries and seed.
        reference: the checkpoint, which is then attacked in the same way, each network scoring what was found
            against either; or the golden images, whose stored answers stand for it where there is no checkpoint.
        progress: called with (queries done, queries in all).
    """
    _refuse_none(fresh)
    start, score, labels = time.monotonic(), score_of(model), fresh.labels
    square, random = Square(attack.eps, attack.steps), np.random.default_rng(attack.seed)
    found = [square_attack(score, fresh.images, labels, square, random, progress=progress)]
    logits = score(fresh.probes)
    clean, flags = is_right(logits, labels), repeat_flags(score, fresh.probes, logits)
    if isinstance(reference, Golden):
        reference_clean, reference_robust = stored_answers(reference, fresh.ids)
    else:
        random = np.random.default_rng(attack.seed)
        found.append(square_attack(reference, fresh.images, labels, square, random, progress=progress))
        reference_clean = is_right(reference(fresh.probes), labels)
        reference_robust = reference_clean & _right_on(reference, found, labels)
    return Trial(
        BLACKBOX,
        attack,
        fresh.ids,
        reference_clean,
        clean,
        reference_robust,
        clean & _right_on(score, found, labels),
        tuple(flags),
        paired=not isinstance(reference, Golden),
        seconds=time.monotonic() - start,
    )


def parity_of(model: BaseRuntime, golden: Golden) -> Parity:
    """Compare logits on the clean and the attacked golden images."""
    score = score_of(model)
    logits = np.concatenate([score(golden.clean), score(golden.attacked)])
    expected = np.concatenate([golden.clean_logits, golden.attacked_logits])
    agreement = float((logits.argmax(1) == expected.argmax(1)).mean())
    error = relative_error(logits, expected)
    return Parity(error if math.isfinite(error) else 1e308, golden.tolerance, agreement)


def judge(bundle: Bundle, model: BaseRuntime, trials: Sequence[Trial], budget: Budget) -> Verdict:
    """Weigh all modes and flags.

    Args:
        bundle: the one under test.
        model: its open runtime.
        trials: at least one; an empty list fails, since nothing was checked.
        budget: what may be lost.
    """
    golden = bundle.golden()
    parity = parity_of(model, golden)
    modes = tuple(trial.result(budget) for trial in trials)
    artifact = output_flags(score_of(model), golden, parity, bundle.manifest.artifact.precision)
    flags = (*artifact, *(flag for mode in modes for flag in mode.flags), *_over_modes(trials))
    return decided(
        Verdict(
            passed=False,
            reasons=(),
            notes=(),
            target=bundle.manifest.target,
            artifact_sha256=bundle.manifest.artifact.identity,
            checkpoint_sha256=bundle.manifest.source.checkpoint_sha256,
            runtime=model.info,
            machine=machine(),
            parity=parity,
            modes=modes,
            flags=tuple(dict.fromkeys(flags)),  # what several modes saw is one reason
            worst=worst_case(trials, budget),
        ),
        budget,
    )


def decided(verdict: Verdict, budget: Budget) -> Verdict:
    """The same figures with reasons, notes and the decision that follow from them."""
    here = Elsewhere("", verdict.runtime, verdict.machine, verdict.parity, verdict.modes, verdict.flags, verdict.worst)
    reasons, notes = _weighed(here, budget)
    for other in verdict.elsewhere:
        more_reasons, more_notes = _weighed(other, budget)
        reasons += [f"{other.source}: {reason}" for reason in more_reasons]
        notes += [f"{other.source}: {note}" for note in more_notes]
    return dataclasses.replace(verdict, passed=not reasons, reasons=tuple(reasons), notes=tuple(notes))


def _refuse_none(fresh: Fresh) -> None:
    if not len(fresh):
        raise InputError("there are no images to attack; give at least 1")


def _right_on(score: Score, candidates: Sequence[np.ndarray], labels: np.ndarray) -> np.ndarray:
    right = np.ones(len(labels), bool)
    for images in candidates:
        right &= is_right(score(images), labels)
    return right


def _over_modes(trials: Sequence[Trial]) -> List[Flag]:
    """What only shows when modes are laid side by side."""
    black = [trial for trial in trials if trial.mode == BLACKBOX]
    white = [trial for trial in trials if trial.mode in (SURROGATE, WHITEBOX)]
    if not black or not white:
        return []
    held = np.logical_and.reduce([trial.artifact_robust for trial in white])
    both = held & black[0].artifact_robust
    gain = paired_drop(held, both, GAIN)
    if not gain.exceeded:
        return []
    detail = (
        f"Square broke {gain.points:.1f}% of the images that every attack with gradients had left: the gradients are "
        "hidden, and the other modes overstate the artifact"
    )
    return [Flag("black_box_beats_white_box", detail)]


def _weighed(figures: Elsewhere, budget: Budget) -> Tuple[List[str], List[str]]:
    """Reasons to fail, and notes."""
    reasons = [reason for mode in figures.modes for reason in _reasons(mode)]
    notes = [note for mode in figures.modes for note in _notes(mode)]
    if figures.worst is not None:
        named = f"over all modes ({', '.join(figures.worst.modes)})"
        reasons += _excesses(figures.worst, named)
    for flag in figures.flags:
        allowed = flag.name in budget.allowed_flags
        (notes if allowed else reasons).append(f"{'allowed ' if allowed else ''}{flag.name}: {flag.detail}")
    if not figures.modes:
        reasons.append("nothing_checked: no mode was run")
    return reasons, notes


def _reasons(mode: ModeResult) -> List[str]:
    few = f"too_few_images: {mode.mode} checked {mode.images}, at least {MIN_IMAGES} are needed"
    return [few] * (mode.images < MIN_IMAGES) + _excesses(mode, f"in mode {mode.mode}")


def _excesses(result: Union[ModeResult, WorstCase], where: str) -> List[str]:
    return [
        f"{name}_drop: {drop.points:.1f} points {where} (95% interval {drop.low:.1f} to {drop.high:.1f}), "
        f"budget {drop.budget:g}"
        for name, drop in (("clean", result.clean_drop), ("robust", result.robust_drop))
        if drop.exceeded
    ]


def _notes(mode: ModeResult) -> List[str]:
    return [
        f"{mode.images} images in mode {mode.mode} cannot rule out a {name} drop of up to {drop.high:.1f} points"
        for name, drop in (("clean", mode.clean_drop), ("robust", mode.robust_drop))
        if drop.undecided
    ]
