"""Evaluations as text for a terminal: tables, and below them the validity flags."""

from __future__ import annotations

from collections.abc import Mapping

from robust_edge.evaluation.accuracy import Accuracy
from robust_edge.evaluation.audit import Audit
from robust_edge.evaluation.combination import Combination
from robust_edge.evaluation.outcome import AttackResult
from robust_edge.evaluation.record import Evaluation
from robust_edge.evaluation.subset import Subset
from robust_edge.evaluation.transfer import Transfer
from robust_edge.run.per_class import describe_classes, no_better_than_constant
from robust_edge_runtimes.present.tables import percent, table


def evaluation_table(record: Evaluation, no_better: str = "") -> str:
    """The record as a table with its flags.

    Args:
        record: of any attack.
        no_better: why the network may be no better than a constant answer, as `Checkpoint.no_better`.
    """
    if record.combination is not None:
        rows = _combination_rows(record.combination)
    elif record.result is not None:
        rows = _result_rows(record.result)
    else:
        points = record.curve.points if record.curve is not None else ()
        rows = [_row(f"eps={point.eps:g}", point.accuracy) for point in points]
    lines = [table([record.run, "accuracy", "95% interval", "images"], rows)]
    if record.result is not None:
        lines.append(attack_line(record.result))
        if record.result.per_class:
            lines += [describe_classes(record.result.per_class), *_constant_lines(record.result, no_better)]
    if record.combination is not None:
        lines.append(f"oblivious: {attack_line(record.combination.oblivious[0])}; the last iterate of each image")
    if record.subset is not None and record.subset.seed is not None:
        lines.append(_subset_line(record.subset))
    if record.memory is not None:
        lines.append(record.memory.summary() + f", {record.seconds:.1f} s")
    return "\n".join([*lines, *_flag_lines(record)])


def _constant_lines(result: AttackResult, no_better: str) -> list[str]:
    return [f"WARNING: {text}" for text in no_better_than_constant(result.per_class, no_better)]


def attack_line(result: AttackResult) -> str:
    """The ball and the attacks, for example `ℓ∞, eps=0.1, seed 0, batches of 250: pgd 50 steps × 3 restarts`."""
    stages = "; ".join(" ".join([stage.name, _counts(stage.settings)]).strip() for stage in result.stages)
    ball = f"{result.threat.symbol}, eps={result.threat.eps:.4g}"
    return f"{ball}, seed {result.seed}, batches of {result.batch_size}: {stages}"


def _counts(settings: Mapping[str, object]) -> str:
    """The integer settings, for example `50 steps × 3 restarts`; those with value 1 are omitted except `steps`."""
    counts = {name: value for name, value in settings.items() if type(value) is int}
    shown = {name: value for name, value in counts.items() if value != 1 or name == "steps"}
    return " × ".join(f"{value} {name.removesuffix('s') if value == 1 else name}" for name, value in shown.items())


def audit_lines(audit: Audit | None) -> list[str]:
    """One line per raised flag, or one line that no flag is raised or that there was no audit."""
    if audit is None:
        return ["NOT AUDITED: an older record; evaluate again"]
    if audit.clean:
        decided = [check for check in audit.checks if check.raised is not None]
        return [f"validity: none of {len(decided)} checks raised"]
    return [f"FLAG {check.name}: {check.detail}" for check in audit.checks if check.raised]


def _flag_lines(record: Evaluation) -> list[str]:
    if record.combination is None:
        return audit_lines(record.audit)
    names = ["average", *(member.judged for member in record.combination.members)]
    return [f"{name}: {line}" for name, audit in zip(names, record.audits, strict=True) for line in audit_lines(audit)]


def _subset_line(part: Subset) -> str:
    return f"{part.images} of {part.of} test images, a fixed subset (seed {part.seed})"


def _result_rows(result: AttackResult) -> list[list[str]]:
    rows = [_row("clean", result.clean)]
    rows += [_row(f"after {stage.name}", stage.cumulative) for stage in result.stages]
    return rows


def _combination_rows(pair: Combination) -> list[list[str]]:
    rows = []
    for member in pair.members:
        rows += [_row(f"{member.judged} clean", member.clean), _row(f"{member.judged} attacked", member.robust)]
    rows.append(_row("average clean", pair.adaptive.clean))
    rows += [_row(f"average, oblivious: attack on {item.attacked}", item.robust) for item in pair.oblivious]
    rows.append(_row("average, adaptive: attack on the average", pair.adaptive.robust))
    rows.append(_row("average under all of these", pair.every))
    return rows


def _row(name: str, value: Accuracy) -> list[str]:
    return [name, percent(value.value), value.interval, str(value.images)]


def transfer_table(result: Transfer) -> str:
    """One table per source: a row per network that classified its images, a column per ε."""
    blocks = []
    for source in result.sources:
        curves = [curve for curve in result.curves if curve.source == source]
        rows = [
            [
                curve.target + (" (white box)" if curve.target == source else ""),
                percent(curve.clean.value),
                *(percent(point.accuracy.value) for point in curve.points),
            ]
            for curve in curves
        ]
        header = [f"images made on {source}", "clean", *(f"{point.eps:g}" for point in curves[0].points)]
        blocks.append(table(header, rows))
    flags = [f"{network.name}: {line}" for network in result.networks for line in audit_lines(network.audit)]
    how = f"{result.attack} {_counts(result.settings or {'steps': result.steps})}".strip()
    lines = [f"{how}, last iterate, seed {result.seed}; 95% intervals in the JSON"]
    if result.subset.seed is not None:
        lines.append(_subset_line(result.subset))
    lines.append(result.memory.summary() + f", {result.seconds:.1f} s")
    return "\n".join(["\n\n".join(blocks), *lines, *flags])
