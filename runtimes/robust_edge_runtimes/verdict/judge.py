"""The verdict: is the artifact still right, and still right under attack, as its checkpoint was?

Every image is judged twice, by the checkpoint and by the artifact, on the same candidates; the gate weighs
the paired difference. An image counts as robust only if it is right when clean and under every candidate.
docs/verification.md says what the verdict can see and what it cannot.
"""

from __future__ import annotations

import dataclasses
from typing import List, Optional, Sequence, Tuple, Union

import numpy as np

from robust_edge_runtimes.core.environment import Machine, machine
from robust_edge_runtimes.core.runtime import RuntimeInfo
from robust_edge_runtimes.verdict.checks import black_box_beats_white_box, not_the_checkpoint, output_checks
from robust_edge_runtimes.verdict.flags import Check, Flag, raised
from robust_edge_runtimes.verdict.measurement import (
    GRADIENTS,
    LOGITS,
    Budget,
    Measurement,
    ModeResult,
    Parity,
    Rebuild,
    WorstCase,
    common_ids,
    golden_logits,
    parity_between,
    right_in_all,
    worst_case,
)
from robust_edge_runtimes.verdict.prebuilt import prebuilt_checks
from robust_edge_runtimes.verdict.statistic import MIN_IMAGES
from robust_edge_runtimes.verdict.subject import Subject

VERDICT_VERSION = 1


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
        rebuild: whether the bundle's files are those that its run exports again; None where that was not asked.
        remarks: notes on the artifact's files, which stay whatever is merged.
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
    rebuild: Optional[Rebuild] = None
    remarks: Tuple[str, ...] = ()
    schema_version: int = VERDICT_VERSION


def judge(subject: Subject, results: Sequence[Union[Measurement, Rebuild]], budget: Budget) -> Verdict:
    """Weigh all modes and flags.

    Args:
        subject: the artifact under test.
        results: of each mode that was run; an empty list fails, since nothing was checked.
        budget: what may be lost.
    """
    manifest, golden = subject.bundle.manifest, subject.golden
    measurements = [item for item in results if isinstance(item, Measurement)]
    rebuild = next((item for item in results if isinstance(item, Rebuild)), None)
    prebuilt, remarks = prebuilt_checks(subject.bundle, subject.model, golden)
    logits = golden_logits(subject.model, golden)
    expected = np.concatenate([golden.clean_logits, golden.attacked_logits])
    checks = output_checks(subject.score, golden.clean, golden.clean_logits, golden.tolerance, subject.precision)
    checks.append(not_the_checkpoint("golden images", logits, expected, golden.tolerance))
    modes = tuple(item.result(budget) for item in measurements)
    rebuilt = () if rebuild is None else rebuild.flags
    flags = (
        *rebuilt,
        *raised([*prebuilt, *checks]),
        *(flag for mode in modes for flag in mode.flags),
        *raised(_over_modes(measurements)),
    )
    return decided(
        Verdict(
            passed=False,
            reasons=(),
            notes=(),
            target=manifest.target,
            artifact_sha256=manifest.artifact.identity,
            checkpoint_sha256=manifest.source.checkpoint_sha256,
            runtime=subject.model.info,
            machine=machine(),
            parity=parity_between(logits, golden),
            modes=modes,
            flags=tuple(dict.fromkeys(flags)),  # what several modes found is one reason
            worst=worst_case(measurements, budget),
            rebuild=rebuild,
            remarks=(*remarks, *(() if rebuild is None else rebuild.notes)),
        ),
        budget,
    )


def decided(verdict: Verdict, budget: Budget) -> Verdict:
    """The same figures with reasons, notes and the decision that follow from them."""
    here = Elsewhere("", verdict.runtime, verdict.machine, verdict.parity, verdict.modes, verdict.flags, verdict.worst)
    reasons, notes = _weighed(here, budget)
    notes = [*verdict.remarks, *notes]
    for other in verdict.elsewhere:
        more_reasons, more_notes = _weighed(other, budget)
        reasons += [f"{other.source}: {reason}" for reason in more_reasons]
        notes += [f"{other.source}: {note}" for note in more_notes]
    return dataclasses.replace(verdict, passed=not reasons, reasons=tuple(reasons), notes=tuple(notes))


def _over_modes(measurements: Sequence[Measurement]) -> List[Check]:
    """What only shows when modes are compared: an attack without gradients that breaks more than those with them."""
    without = [item for item in measurements if item.works_with == LOGITS]
    with_gradients = [item for item in measurements if item.works_with == GRADIENTS]
    if not without or not with_gradients:
        return []
    ids = common_ids([*without, *with_gradients])
    if not len(ids):
        return []
    left = right_in_all(with_gradients, ids, "artifact_robust")
    broken = int((left & ~right_in_all(without, ids, "artifact_robust")).sum())
    return [black_box_beats_white_box(broken, len(ids), exact=False)]


def _weighed(figures: Elsewhere, budget: Budget) -> Tuple[List[str], List[str]]:
    """Reasons to fail, and notes."""
    reasons = [reason for mode in figures.modes for reason in _reasons(mode)]
    notes = [note for mode in figures.modes for note in _notes(mode)]
    if figures.worst is not None:
        reasons += _excesses(figures.worst, f"over all modes ({', '.join(figures.worst.modes)})")
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
