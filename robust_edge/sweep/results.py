"""Read the results of a sweep: the state of every cell, and one row for every network or bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from robust_edge.evaluation.record import Evaluation
from robust_edge.run.directory import Checkpoint
from robust_edge.sweep.cell import CellState, read_state
from robust_edge.sweep.grid import Cell
from robust_edge.sweep.plan import BENCH, EVALUATE, EXPORT, VERIFY, Plan
from robust_edge_runtimes.attacks.threat import LINF
from robust_edge_runtimes.bench.protocols import ONE_IMAGE
from robust_edge_runtimes.bench.results import Bench, Latency
from robust_edge_runtimes.core.decode import decode, read_json
from robust_edge_runtimes.core.errors import BundleError, InputError
from robust_edge_runtimes.core.manifest import Manifest
from robust_edge_runtimes.verdict.judge import Verdict

T = TypeVar("T")
DONE, FAILED, OPEN = "done", "failed", "open"
FAILED_CODE, UNDECIDED_CODE = 1, 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attacked:
    """The accuracies of a cell in [0, 1], and the attack.

    Attributes:
        attack: name, norm and radius; accuracies under different attacks cannot be compared.
        images: number of test images; None where the training evaluated all of them.
    """

    attack: str
    clean: float
    robust: float
    images: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One bundle of a finished training, or its network if the sweep exports nothing.

    Attributes:
        values: the text of each axis.
        macs: multiply-accumulates with non-zero weights for one image; None if they were not counted.
        target: of the bundle; empty without one.
        bytes: of the artifact and its companions.
        verdict: outcome of the last verify of the bundle.
        latency: of one image, from the last bench of the bundle.
    """

    cell: str
    values: tuple[str, ...]
    weights: int
    nonzero: int
    macs: int | None
    dense_macs: int | None
    attacked: Attacked
    target: str = ""
    bytes: int | None = None
    verdict: str | None = None
    latency: Latency | None = None

    @property
    def latency_ns(self) -> float | None:
        """The median latency of one image."""
        return None if self.latency is None else self.latency.p50_ns


@dataclasses.dataclass(frozen=True)
class CellResult:
    """How far a cell is.

    Attributes:
        state: DONE; FAILED, which the same command tries again; or OPEN.
        done: number of finished steps.
        why: the failed step, its exit code and the last line of its log.
        codes: exit codes of the finished steps; 1 and 5 are verdicts.
    """

    name: str
    state: str
    done: int
    steps: int
    why: str
    codes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class SweepResult:
    """The state of all cells, and the rows of those that are trained.

    Attributes:
        cells: in the order of the grid.
        notes: what a reader of the tables should know, one sentence each.
    """

    folder: str
    cells: tuple[CellResult, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """1 if a cell is not done or a check in one failed, else 5 if a verdict is undecided, else 0."""
        codes = {code for cell in self.cells for code in cell.codes}
        if FAILED_CODE in codes or any(cell.state != DONE for cell in self.cells):
            return FAILED_CODE
        return UNDECIDED_CODE if UNDECIDED_CODE in codes else 0


def cell_result(plan: Plan, cell: Cell) -> CellResult:
    """Read how far a cell is."""
    state = read_state(plan.job(cell))
    done, failed = len(state.done), state.failed
    why = "" if failed is None else f"{failed.title}, exit {failed.code}: {failed.why}"
    label = FAILED if failed is not None else DONE if done == len(plan.steps) else OPEN
    return CellResult(cell.name, label, done, len(plan.steps), why, tuple(step.code for step in state.done))


def rows(plan: Plan) -> tuple[Row, ...]:
    """The rows of all cells whose training is finished, in the order of the grid."""
    return tuple(row for cell in plan.cells for row in _rows(plan, cell))


def _rows(plan: Plan, cell: Cell) -> Iterator[Row]:
    state = read_state(plan.job(cell))
    if not state.done:
        return
    checkpoint = _read(Checkpoint, plan, cell, 0)
    arithmetic = checkpoint.arithmetic
    network = Row(
        cell=cell.name,
        values=cell.values,
        weights=checkpoint.sparsity.weights,
        nonzero=checkpoint.sparsity.nonzero,
        macs=None if arithmetic is None else arithmetic.kept,
        dense_macs=None if arithmetic is None else arithmetic.dense,
        attacked=_attacked(plan, cell, state, checkpoint),
    )
    exports = [i for i in range(len(state.done)) if plan.steps[i].command == EXPORT]
    if not any(step.command == EXPORT for step in plan.steps):
        yield network
    for export in exports:
        yield _with_bundle(network, plan, cell, state, export)


def _attacked(plan: Plan, cell: Cell, state: CellState, checkpoint: Checkpoint) -> Attacked:
    """The result of the last `evaluate` with one radius; without one the evaluation at the end of the training."""
    evaluated = [i for i in range(len(state.done)) if plan.steps[i].command == EVALUATE]
    for index in reversed(evaluated):
        result = _read(Evaluation, plan, cell, index).result
        if result is not None:
            norm = "" if result.threat.norm == LINF else f" {result.threat.norm}"
            attack = f"{result.title}{norm} eps={result.threat.eps:.4g}"
            return Attacked(
                attack=attack, clean=result.clean.value, robust=result.robust.value, images=result.clean.images
            )
    found = checkpoint.metrics
    attack = f"PGD-{found['attack_steps']:.0f} eps={found['attack_eps']:.4g}"
    return Attacked(attack=attack, clean=found["clean_accuracy"], robust=found["robust_accuracy"], images=None)


def _with_bundle(network: Row, plan: Plan, cell: Cell, state: CellState, export: int) -> Row:
    manifest = _manifest(plan.result(cell, export))
    own = [i for i in range(len(state.done)) if plan.exported_before(i) == export]
    verdicts = [_read(Verdict, plan, cell, i).outcome for i in own if plan.steps[i].command == VERIFY]
    benches = [_read(Bench, plan, cell, i) for i in own if plan.steps[i].command == BENCH]
    return dataclasses.replace(
        network,
        target=manifest.target,
        bytes=manifest.artifact.total_bytes,
        verdict=verdicts[-1] if verdicts else None,
        latency=_latency(benches[-1], manifest) if benches else None,
    )


def _manifest(path: Path) -> Manifest:
    """That of a bundle as `export` has printed it; the bundle may have been moved away since."""
    try:
        return Manifest.from_json(read_json(path).get("manifest"), str(path))
    except (BundleError, AttributeError) as cause:
        raise InputError(
            f"{path} is not what `export` of this release prints ({cause}); delete its folder to export again"
        ) from cause


def _latency(bench: Bench, manifest: Manifest) -> Latency | None:
    """The times of one image of the bundle among the others of a bench."""
    entries = [entry for entry in bench.entries if entry.artifact_sha256 == manifest.artifact.identity]
    return next((item for entry in entries for item in entry.latencies if item.protocol == ONE_IMAGE), None)


def _read(cls: type[T], plan: Plan, cell: Cell, index: int) -> T:
    path = plan.result(cell, index)
    return decode(cls, read_json(path), where=str(path))
