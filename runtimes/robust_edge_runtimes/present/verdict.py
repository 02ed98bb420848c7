"""A verdict as text."""

from __future__ import annotations

from typing import List, Sequence, Union

from robust_edge_runtimes.core.decode import short_repr, visible
from robust_edge_runtimes.present.tables import percent, table
from robust_edge_runtimes.verdict.judge import Verdict
from robust_edge_runtimes.verdict.measurement import STORED, ModeResult, Rebuild, Twin, WorstCase
from robust_edge_runtimes.verdict.per_class import ClassFigures, balanced
from robust_edge_runtimes.verdict.statistic import Drop


def verdict_table(verdict: Verdict) -> str:
    """One row per mode and accuracy, then the notes, the reasons for a failure and the verdict."""
    rows = [row for mode in verdict.modes for row in _accuracies(mode.mode, attack_name(mode), mode)]
    if verdict.worst is not None:
        rows += _accuracies("all modes", "worst case", verdict.worst)
    for other in verdict.elsewhere:
        rows += [row for mode in other.modes for row in _accuracies(mode.mode + " *", attack_name(mode), mode)]
    header = ["mode", "accuracy", "images", "checkpoint", "artifact", "drop (interval) / budget, points"]
    lines = [table(header, rows), *_sample_line(verdict)]
    for other in verdict.elsewhere:
        where = visible(f"{other.machine.cpu}, {other.runtime.backend} {other.runtime.version}")
        lines.append(f"* measured on another machine: {other.source} ({where})")
    if verdict.modes:
        lines.append("time: " + ", ".join(f"{mode.mode} {mode.seconds:.1f} s" for mode in verdict.modes))
    lines += [_twin_line(mode.mode, mode.twin) for mode in verdict.modes if mode.twin is not None]
    if verdict.rebuild is not None:
        lines.append(rebuild_line(verdict.rebuild))
    parity = verdict.parity
    lines.append(
        f"largest logit error {parity.max_logit_error:.2g} (relative; tolerance {parity.tolerance:.2g}), "
        f"the class agrees on {100 * parity.argmax_agreement:.2f}% of the images"
    )
    if verdict.per_class:
        lines.append(class_line(verdict.per_class))
    lines += [f"note: {visible(note)}" for note in verdict.notes]
    lines += [f"FAILED {visible(reason)}" for reason in verdict.reasons]
    lines += [f"UNDECIDED {visible(line)}" for line in verdict.undecided]
    decision = verdict.outcome.upper()
    artifact, runtime = verdict.artifact_sha256[:12], verdict.runtime
    lines.append(f"{decision}  {verdict.target} artifact {artifact} on {runtime.backend} {runtime.version}")
    return "\n".join(lines)


def rebuild_line(rebuild: Rebuild) -> str:
    """What the comparison with a new export of the run found."""
    places = len(rebuild.differences)
    other = f"differ from a new export in {places} place{'s' * (places != 1)}"
    found = "equal those that the run exports again" if rebuild.equal else other
    return f"rebuild: {len(rebuild.compared)} files {found} ({rebuild.seconds:.1f} s)"


def class_line(figures: Sequence[ClassFigures]) -> str:
    """Balanced accuracies of both networks, and the class of which the artifact is right on the smallest part."""
    clean, reference_clean, robust, reference_robust = (
        percent(balanced(figures, name))
        for name in ("artifact_clean", "reference_clean", "artifact_robust", "reference_robust")
    )
    worst = min(figures, key=lambda item: (item.artifact_robust / item.images, item.artifact_clean / item.images))
    lowest = " and ".join(percent(right / worst.images) for right in (worst.artifact_clean, worst.artifact_robust))
    return (
        f"balanced over {len(figures)} classes: clean {clean} (checkpoint {reference_clean}), attacked {robust} "
        f"({reference_robust}); lowest in class {short_repr(worst.name)}: {lowest} of {worst.images} images"
    )


def attack_name(mode: ModeResult) -> str:
    """The name of a mode's attack and the settings that are needed to repeat it."""
    attack, unit = mode.attack, "queries" if mode.counts_queries else "steps"
    return f"{attack.name} eps={attack.eps:.4g}, {attack.steps} {unit}, seed {attack.seed}"


def _accuracies(where: str, attack: str, result: Union[ModeResult, WorstCase]) -> List[List[str]]:
    stored = isinstance(result, ModeResult) and not result.paired
    return [
        [where, name, str(result.images), "stored " * stored + percent(reference), percent(artifact), _drop(drop)]
        for name, reference, artifact, drop in (
            ("clean", result.reference_clean, result.artifact_clean, result.clean_drop),
            (attack, result.reference_robust, result.artifact_robust, result.robust_drop),
        )
    ]


def _sample_line(verdict: Verdict) -> List[str]:
    """Why `all modes` can lie above a mode that attacks the stored images instead of the drawn ones."""
    worst = verdict.worst
    stored = [mode for mode in verdict.modes if mode.works_with == STORED]
    if worst is None or not stored:
        return []
    counts = {stored[0].images, stored[0].available, worst.images, worst.available}
    if len(counts) == 1:  # the bundle stores all test images, and all were drawn
        return []
    return [
        f"{stored[0].mode} attacks the images that the bundle stores; the other modes attack drawn ones, over which "
        "`all modes` is computed, so that its accuracies can be the higher ones"
    ]


def _twin_line(mode: str, twin: Twin) -> str:
    return (
        f"{mode} takes gradients of {twin.made_from}; its logits are within {twin.max_logit_error:.2g} of the "
        f"artifact's (relative; tolerance {twin.tolerance:.2g}), temperature {twin.temperature:.3g}"
    )


def _drop(drop: Drop) -> str:
    return f"{drop.points:+.1f} ({drop.low:+.1f} to {drop.high:+.1f}) / {drop.budget:g}"
