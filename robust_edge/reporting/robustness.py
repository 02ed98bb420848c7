"""The robustness tables of the thesis for any set of runs: accuracies with intervals, and validity flags.

Source: Marshall 2020, tables 4.1, 4.2 and C.1, and the data of figures 4.5, 4.6, B.1, C.1 and C.2.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Sequence

from robust_edge.attacks.table import FGSM
from robust_edge.evaluation.accuracy import Accuracy
from robust_edge.evaluation.audit import Audit
from robust_edge.evaluation.outcome import AttackResult
from robust_edge.evaluation.record import Evaluation
from robust_edge.evaluation.transfer import Transfer
from robust_edge.reporting.collect import RunData
from robust_edge.reporting.formats import radius, with_thousands
from robust_edge_runtimes.present.tables import percent

Cell = Accuracy | str | None
NOT_PARAMETERS = ("running_mean", "running_var", "num_batches_tracked", "mean", "std")
OBLIVIOUS = "oblivious: images made on"


@dataclasses.dataclass(frozen=True)
class Table:
    """One table, independent of its output format.

    Attributes:
        key: part of its file name.
        title: what it shows, and the corresponding table of the thesis.
        header: one name per column.
        rows: each cell is text, an accuracy with its interval, or None where nothing was measured.
        notes: remarks below the table.
    """

    key: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


def robustness_tables(runs: Sequence[RunData], transfers: Sequence[Transfer]) -> list[Table]:
    """All tables that have at least one row."""
    finished = [run for run in runs if run.checkpoint is not None]
    tables = [_models(finished)] if finished else []
    tables += _all_attacks(finished)
    tables += _cumulative(finished)
    tables += _combined(finished)
    tables += _curve(finished)
    for index, transfer in enumerate(transfers):
        tables += [_transfer(transfer, source, index, finished) for source in transfer.sources]
    return tables


def attack_title(result: AttackResult) -> str:
    """The attack in the header of a column, such as `PGD-50 ℓ∞ 8/255`."""
    return f"{result.title} {result.threat.symbol} {radius(result.threat.eps)}"


def flags_of(audits: Iterable[Audit | None]) -> str:
    """The raised flags of several audits as the text of one table cell."""
    raised: list[str] = []
    unseen = False
    for audit in audits:
        if audit is None or not audit.checks:
            unseen = True
        else:
            raised += audit.flags
    words = list(dict.fromkeys(raised)) + (["NOT AUDITED"] if unseen else [])
    return ", ".join(words) or "none"


def benign_points(runs: Sequence[RunData]) -> list[tuple[RunData, Accuracy, Accuracy]]:
    """Figure B.1: every benign run with an FGSM result, its clean and its robust accuracy."""
    found = []
    for run in runs:
        record = _record(run, FGSM)
        if record is not None and record.result is not None and "benign" in run.roles:
            found.append((run, record.result.clean, record.result.robust))
    return found


def clean_of(run: RunData) -> Accuracy | None:
    """The clean accuracy of the run, from the evaluation with the most images."""
    found = [record.result.clean for record in run.records if record.result and record.combination is None]
    found += [run.curve.points[0].accuracy] if run.curve else []
    return max(found, key=lambda value: value.images, default=None)


def _models(runs: Sequence[RunData]) -> Table:
    rows = []
    for run in runs:
        assert run.checkpoint is not None
        counts = run.checkpoint.sparsity
        rows.append(
            (
                run.name,
                run.network,
                run.checkpoint.dataset,
                with_thousands(_parameters(run)),
                percent(counts.keep),
                clean_of(run),
                flags_of(_audits(run)) if clean_of(run) else None,
            )
        )
    header = ("run", "network", "data", "parameters", "weights kept", "benign accuracy", "validity flags")
    title = "Networks and their accuracy on benign images (Table 4.1)"
    return Table("models", title, header, tuple(rows), _stale_notes(runs))


def _all_attacks(runs: Sequence[RunData]) -> list[Table]:
    columns: list[str] = []
    cells: dict[str, dict[str, Accuracy]] = {run.name: {} for run in runs}
    for run in runs:
        for record in run.records:
            if record.result is not None and record.combination is None:
                name = attack_title(record.result)
                columns += [] if name in columns else [name]
                cells[run.name][name] = record.result.robust
    if not columns:
        return []
    rows = tuple(
        (run.name, clean_of(run), *(cells[run.name].get(name) for name in columns), flags_of(_audits(run)))
        for run in runs
        if cells[run.name]
    )
    title = "Right when clean and under every candidate of an attack"
    used = [(run, record) for run in runs for record in run.records if record.result and record.combination is None]
    return [Table("attacks", title, ("run", "benign", *columns, "validity flags"), rows, _subset_notes(used))]


def _cumulative(runs: Sequence[RunData]) -> list[Table]:
    """Sets of attacks, attack after attack: one table per set, norm and radius."""
    groups: dict[tuple[str, str, float, tuple[str, ...]], list[tuple[RunData, Evaluation, AttackResult]]] = {}
    for run in runs:
        for record in run.records:
            result = record.result
            if result is not None and len(result.stages) > 1 and record.combination is None:
                names = tuple(stage.name for stage in result.stages)
                key = (result.attack, result.threat.norm, result.threat.eps, names)
                groups.setdefault(key, []).append((run, record, result))
    tables: list[Table] = []
    seen: Counter[str] = Counter()
    for (attack, _, eps, names), found in groups.items():
        rows: tuple[tuple[Cell, ...], ...] = tuple(
            (
                run.name,
                percent(run.checkpoint.sparsity.keep) if run.checkpoint else None,
                result.clean,
                *(stage.cumulative for stage in result.stages),
                str(sum(outcome == names[-1] for outcome in result.outcomes)),
                flags_of([record.audit]),
            )
            for run, record, result in found
        )
        header = ("run", "weights kept", "benign", *names, f"broken by {names[-1]} alone", "validity flags")
        first = found[0][2]
        title = f"{first.title}, attack after attack (as Table 4.2); {first.threat.symbol}, ε = {radius(eps)}"
        seen[attack] += 1
        table = attack if seen[attack] == 1 else f"{attack}-{seen[attack]}"
        tables.append(Table(table, title, header, rows, _subset_notes((run, record) for run, record, _ in found)))
    return tables


def _combined(runs: Sequence[RunData]) -> list[Table]:
    rows: list[tuple[Cell, ...]] = []
    for run in runs:
        for record in run.records:
            pair = record.combination
            if pair is None:
                continue
            average = flags_of(record.audits)
            rows += [
                (item.judged, attack_title(item), "its own gradients", item.clean, item.robust, flags_of([audit]))
                for item, audit in zip(pair.members, record.audits[1:], strict=True)
            ]
            rows += [
                (item.judged, attack_title(item), f"{OBLIVIOUS} {item.attacked}", item.clean, item.robust, average)
                for item in pair.oblivious
            ]
            own = pair.adaptive
            judged = (own.judged, attack_title(own))
            rows.append((*judged, "adaptive: gradients of the average", own.clean, own.robust, average))
            rows.append((*judged, "all of these", own.clean, pair.every, average))
    if not rows:
        return []
    note = "oblivious is the thesis' protocol; an adversary who knows of the average is adaptive: quote the last row"
    header = ("network", "attack", "adversary", "benign", "under attack", "validity flags")
    return [Table("combined", "Averaged probabilities (Table C.1)", header, tuple(rows), (note,))]


def _curve(runs: Sequence[RunData]) -> list[Table]:
    drawn = [run for run in runs if run.curve is not None]
    if not drawn:
        return []
    points = {run.name: {p.eps: p.accuracy for p in run.curve.points} for run in drawn if run.curve}
    radii = sorted({eps for row in points.values() for eps in row})
    rows = [(radius(eps), *(points[run.name].get(eps) for run in drawn)) for eps in radii]
    rows.append(("validity flags", *(flags_of([run.rising.audit]) for run in drawn if run.rising)))
    used = [(run, run.rising) for run in drawn if run.rising]
    title = "Accuracy against rising ε (Algorithm 2, figures 4.5 and C.1)"
    return [Table("curve", title, ("ε", *(run.name for run in drawn)), tuple(rows), _subset_notes(used))]


def _transfer(transfer: Transfer, source: str, index: int, runs: Sequence[RunData]) -> Table:
    curves = [curve for curve in transfer.curves if curve.source == source]
    audits = {network.name: network.audit for network in transfer.networks}
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            curve.target + (" (white box)" if curve.target == source else ""),
            curve.clean,
            *(point.accuracy for point in curve.points),
            flags_of([audits.get(curve.target), audits.get(source)]),
        )
        for curve in curves
    )
    header = ("target", "benign", *(f"ε = {radius(point.eps)}" for point in curves[0].points), "validity flags")
    title = f"Attack images made on {source} (Algorithm 3, figures 4.6 and C.2)"
    notes = [f"{transfer.title or f'PGD-{transfer.steps}'}, last iterate, seed {transfer.seed}"]
    part = transfer.subset
    if part.seed is not None:
        notes.append(f"{part.images} of {part.of} test images, subset {part.seed}")
    older = _retrained(transfer, runs)
    if older:
        notes.append(f"OTHER WEIGHTS than the runs on this page have: {', '.join(older)}; run transfer again")
    return Table(f"transfer-{index + 1}-{source}", title, header, rows, tuple(notes))


def _retrained(transfer: Transfer, runs: Sequence[RunData]) -> list[str]:
    """Networks of the transfer that have the name of a run in the report but other weights."""
    shown = {run.checkpoint.weights_sha256 for run in runs if run.checkpoint is not None}
    names = {run.run.name for run in runs}
    return [item.name for item in transfer.networks if item.name in names and item.checkpoint_sha256 not in shown]


def _record(run: RunData, attack: str) -> Evaluation | None:
    return next((record for record in run.records if record.attack == attack and record.combination is None), None)


def _audits(run: RunData) -> list[Audit | None]:
    return [record.audit for record in run.records if record.result is not None and record.combination is None]


def _stale_notes(runs: Sequence[RunData]) -> tuple[str, ...]:
    return tuple(
        f"{run.name}: {', '.join(run.stale)} left out: of other weights than the networks have now, or of release 0.1; "
        "evaluate again"
        for run in runs
        if run.stale
    )


def _subset_notes(records: Iterable[tuple[RunData, Evaluation]]) -> tuple[str, ...]:
    """One note for each subset of the test images that was used, with the results it applies to."""
    groups: dict[str, list[str]] = {}
    for run, record in records:
        part = record.subset
        if part is not None and part.seed is not None:
            text = f"{part.images} of {part.of} test images (fixed subset, seed {part.seed})"
            name = record.attack if record.result is None else record.result.title
            groups.setdefault(text, []).append(f"{name} on {run.name}")
    return tuple(f"{text}: {', '.join(dict.fromkeys(names))}" for text, names in groups.items())


def _parameters(run: RunData) -> int:
    """Number of parameters according to the file header, without batch-norm statistics and normalisation."""
    with run.run.tensors() as file:
        sizes = {name: math.prod(shape) for name, shape in file.shapes.items()}
    return sum(size for name, size in sizes.items() if name.rpartition(".")[2] not in NOT_PARAMETERS)
