"""The verdict: does the artifact keep the clean and the robust accuracy of its checkpoint?

The checkpoint and the artifact classify the same images and the same candidates, and the gate tests the paired
difference of their accuracies. An image counts as robust only if it is right when clean and under every candidate.
docs/verification.md describes what a verdict shows and what it does not show.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import List, Optional, Sequence, Tuple, Union

from robust_edge_runtimes.attacks.square import DEFAULT_QUERIES
from robust_edge_runtimes.core.decode import bounded
from robust_edge_runtimes.core.environment import Machine, machine
from robust_edge_runtimes.core.runtime import RuntimeInfo
from robust_edge_runtimes.verdict.checks import (
    BETTER_NETWORK,
    NOTHING_TO_LOSE,
    Answers,
    black_box_beats_white_box,
    nothing_to_lose,
)
from robust_edge_runtimes.verdict.flags import (
    GRADIENT_UNTESTED,
    OTHER_LOGITS,
    TWIN_GRADIENT_DIFFERS,
    Check,
    Flag,
    raised,
)
from robust_edge_runtimes.verdict.inspection import Inspection
from robust_edge_runtimes.verdict.measurement import (
    GRADIENTS,
    LOGITS,
    STORED,
    Budget,
    Measurement,
    ModeResult,
    Parity,
    Rebuild,
    WorstCase,
    common_ids,
    judged_ids,
    right_in_all,
    worst_case,
)
from robust_edge_runtimes.verdict.per_class import ClassFigures, figures_by_class
from robust_edge_runtimes.verdict.statistic import MIN_IMAGES, Drop, level_of_look
from robust_edge_runtimes.verdict.ways_out import more_or_wider, sample_of, too_few_images

VERDICT_VERSION = 2
ONLY_REBUILT = (
    "only_rebuilt: the files were compared with a new export of the run, but the artifact was neither attacked nor "
    "given images beyond the stored ones; name no mode, or an attack, too"
)
PASS, FAIL, UNDECIDED = "pass", "fail", "undecided"
EXIT_CODES = {PASS: 0, FAIL: 1, UNDECIDED: 5}

Lines = Tuple[List[str], List[str], List[str]]
"""Reasons to fail, what is undecided, and notes."""


@dataclasses.dataclass(frozen=True)
class MachineResult:
    """The figures and flags that one machine found for an artifact.

    Attributes:
        source: name of the merged verdict's file; empty for this machine.
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
    """PASS, FAIL or UNDECIDED, with the figures that it follows from.

    Attributes:
        outcome: PASS if the drops are shown to lie within their budgets and no flag is raised; FAIL if a drop is shown
            to exceed its budget or a flag is raised; UNDECIDED otherwise.
        passed: the outcome is PASS.
        reasons: why the gate failed, one line each.
        undecided: drops whose interval contains their budget, with the ways out, one line each.
        notes: lines for the reader that do not change the outcome.
        worst: over all modes, if more than one was run on the same images.
        elsewhere: verdicts of other machines that were merged into this one.
        rebuild: whether the bundle's files are those that its run exports again; None if mode `rebuild` was not run.
        remarks: notes on the artifact's files and on its runtime, which merging does not change.
        precision: of the artifact.
        looks: number of interim tests, each of which compared the drops with their budgets after more images.
        per_class: the figures of the images of each class, over the modes of this machine.
    """

    outcome: str
    passed: bool
    reasons: Tuple[str, ...]
    undecided: Tuple[str, ...]
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
    elsewhere: Tuple[MachineResult, ...] = ()
    rebuild: Optional[Rebuild] = None
    remarks: Tuple[str, ...] = ()
    looks: int = 1
    precision: str = "fp32"
    per_class: Tuple[ClassFigures, ...] = ()
    schema_version: int = VERDICT_VERSION


def judge(
    inspection: Inspection,
    results: Sequence[Union[Measurement, Rebuild]],
    budget: Budget,
    *,
    look: int = 1,
    last: bool = True,
) -> Verdict:
    """Combine the results of all modes, and derive flags, reasons and outcome.

    Args:
        inspection: of the artifact under test.
        results: one per mode that was run; an empty list fails, since nothing was checked.
        budget: percentage points that the artifact may lose, and flags that it may raise.
        look: number of this interim test, from 1.
        last: whether there are no more images to draw.
    """
    level = level_of_look(look, last=last)
    manifest = inspection.manifest
    measurements = [item for item in results if isinstance(item, Measurement)]
    rebuild = next((item for item in results if isinstance(item, Rebuild)), None)
    modes = tuple(item.result(budget, level) for item in measurements)
    per_class = figures_by_class(measurements, manifest.classes)
    figures = Verdict(
        outcome=UNDECIDED,
        passed=False,
        reasons=(),
        undecided=(),
        notes=(),
        target=manifest.target,
        artifact_sha256=manifest.artifact.identity,
        checkpoint_sha256=manifest.source.checkpoint_sha256,
        runtime=inspection.runtime,
        machine=machine(),
        parity=inspection.parity,
        modes=modes,
        flags=_flags(inspection, measurements, modes, rebuild, per_class),
        worst=worst_case(measurements, budget, level),
        rebuild=rebuild,
        remarks=(*map(bounded, inspection.remarks), *(() if rebuild is None else rebuild.notes)),
        looks=look,
        precision=manifest.artifact.precision,
        per_class=per_class,
    )
    return with_outcome(figures, budget)


def _flags(
    inspection: Inspection,
    measurements: Sequence[Measurement],
    modes: Sequence[ModeResult],
    rebuild: Optional[Rebuild],
    per_class: Sequence[ClassFigures],
) -> Tuple[Flag, ...]:
    """The flags of the files, the outputs and all modes; a flag that several modes raise is listed once."""
    robust = [_answers(item) for item in measurements]
    paired = [item for item in measurements if item.paired]
    if paired:
        robust.append(Answers(right_in_all(paired, judged_ids(paired), "reference_robust")))
    by_class = [(item.reference_robust, item.images) for item in per_class]
    flags = (
        *(() if rebuild is None else rebuild.flags),
        *raised([*inspection.checks, nothing_to_lose(robust, len(inspection.manifest.classes), by_class)]),
        *(flag for mode in modes for flag in mode.flags),
        *raised(_over_modes(measurements)),
    )
    return tuple(dict.fromkeys(flags))


def _answers(measurement: Measurement) -> Answers:
    """The checkpoint's answers under a mode's attack; only another export attacks the stored images otherwise."""
    if measurement.works_with != STORED:
        return Answers(measurement.reference_robust, f"under attack in mode {measurement.mode}")
    where = f"of the stored images under their attack of eps {measurement.attack.eps:.4g}"
    return Answers(measurement.reference_robust, where, f"an export with a smaller eps, or {BETTER_NETWORK},")


def with_outcome(verdict: Verdict, budget: Budget) -> Verdict:
    """Derive outcome, reasons and notes from the figures of a verdict."""
    here = MachineResult(
        "", verdict.runtime, verdict.machine, verdict.parity, verdict.modes, verdict.flags, verdict.worst
    )
    reasons: List[str] = []
    undecided: List[str] = []
    notes = list(verdict.remarks)
    for figures in (here, *verdict.elsewhere):
        prefix = f"{figures.source}: " if figures.source else ""
        # equal files say nothing about what the runtime of another machine computes from them
        rebuild = None if figures.source else verdict.rebuild
        own_export = verdict.precision == "fp32" and rebuild is not None and rebuild.equal
        # an allowed flag still says that this runtime does not compute what the files say
        own_export = own_export and not any(flag.name in OTHER_LOGITS for flag in figures.flags)
        found = _reasons_and_notes(figures, budget, rebuild, own_export=own_export)
        for lines, more in zip((reasons, undecided, notes), found):
            lines += [prefix + line for line in more]
    outcome = FAIL if reasons else UNDECIDED if undecided else PASS
    return dataclasses.replace(
        verdict,
        outcome=outcome,
        passed=outcome == PASS,
        reasons=tuple(map(bounded, reasons)),
        undecided=tuple(map(bounded, undecided)),
        notes=tuple(map(bounded, notes)),
    )


def _over_modes(measurements: Sequence[Measurement]) -> List[Check]:
    """Compare modes: an attack without gradients should not break images that all attacks with gradients left."""
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


def _reasons_and_notes(
    figures: MachineResult, budget: Budget, rebuild: Optional[Rebuild], *, own_export: bool
) -> Lines:
    """Reasons to fail, undecided drops, and notes, from the figures of one machine.

    Args:
        figures: the machine's figures.
        budget: percentage points that the artifact may lose, and flags that it may raise.
        rebuild: the result of mode `rebuild` on that machine.
        own_export: whether the artifact is the run's own export in fp32, whose logits are the checkpoint's up to
            rounding, and no flag says that they are others: an undecided drop whose estimate lies within the budget
            is then a note.
    """
    few = too_few_images(map(sample_of, figures.modes))
    parts = (_drop_lines(figures, own_export), _flag_lines(figures, budget), _omission_lines(figures, rebuild))
    reasons, undecided, notes = (list(itertools.chain(*lines)) for lines in zip(*parts))
    return reasons, few + undecided, notes


def _drop_lines(figures: MachineResult, own_export: bool) -> Lines:
    """What the drops of each sample say; arguments as `_reasons_and_notes`."""
    reasons: List[str] = []
    undecided: List[str] = []
    notes: List[str] = []
    few = any(mode.images < MIN_IMAGES for mode in figures.modes)
    decides = f"which decides from {MIN_IMAGES} images on" if few else "which decides"
    for result, where, decisive in _samples(figures):
        for name in ("clean", "robust"):
            drop: Drop = getattr(result, f"{name}_drop")
            if drop.exceeded:
                (reasons if decisive else notes).append(
                    f"{name}_drop: {_interval(drop)} {where}, budget {drop.budget:g}"
                )
            elif drop.undecided and decisive:
                line = f"{name}_drop: {_interval(drop)} {where}; the budget of {drop.budget:g} lies inside"
                if own_export and drop.points <= drop.budget:
                    notes.append(f"{line}; mode rebuild shows that the artifact is the run's own export, {decides}")
                else:
                    undecided.append(line + more_or_wider(result, name))
    return reasons, undecided, notes


def _flag_lines(figures: MachineResult, budget: Budget) -> Lines:
    """What each flag says, which fails the gate unless it is allowed, or only leaves it undecided."""
    reasons: List[str] = []
    undecided: List[str] = []
    notes: List[str] = []
    for flag in figures.flags:
        allowed = flag.name in budget.allowed_flags
        against = {NOTHING_TO_LOSE: undecided, GRADIENT_UNTESTED: notes}.get(flag.name, reasons)
        (notes if allowed else against).append(f"{'allowed ' if allowed else ''}{flag.name}: {flag.detail}")
    return reasons, undecided, notes


def _omission_lines(figures: MachineResult, rebuild: Optional[Rebuild]) -> Lines:
    """What was not run and should have been: any mode, any attack, or Square where gradients are not to be trusted."""
    reasons: List[str] = []
    undecided: List[str] = []
    if not figures.modes and rebuild is None:
        reasons.append("nothing_checked: no mode was run")
    elif not figures.modes:
        undecided.append(ONLY_REBUILT)
    queries = max((mode.attack.steps for mode in figures.modes if mode.works_with == LOGITS), default=0)
    names = {flag.name for flag in figures.flags}
    for name, against in ((TWIN_GRADIENT_DIFFERS, reasons), (GRADIENT_UNTESTED, undecided)):
        if queries < DEFAULT_QUERIES and name in names:
            against.append(
                f"no_black_box: {name} leaves only attacks without gradients, which sent {queries} queries per image, "
                f"at least {DEFAULT_QUERIES} are needed; run mode blackbox"
            )
    return reasons, undecided, []


def _samples(figures: MachineResult) -> List[Tuple[Union[ModeResult, WorstCase], str, bool]]:
    """Each sample of images with a phrase that names it, and whether its drops change the outcome.

    All modes together are one sample, which decides. The stored images are a further sample; if images were drawn, it
    can fail the gate but cannot pass it.
    """
    worst = figures.worst
    samples: List[Tuple[Union[ModeResult, WorstCase], str, bool]] = []
    if worst is not None:
        samples.append((worst, f"over all modes ({', '.join(worst.modes)})", True))
    for mode in figures.modes:
        stored_excess = mode.works_with == STORED and (mode.clean_drop.exceeded or mode.robust_drop.exceeded)
        samples.append((mode, f"in mode {mode.mode}", worst is None or stored_excess))
    return samples


def _interval(drop: Drop) -> str:
    return f"{drop.points:.1f} points ({drop.low:.1f} to {drop.high:.1f})"
