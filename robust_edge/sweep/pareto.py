"""Pareto fronts of robust accuracy against cost, and the tables of a sweep as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence

from robust_edge.reporting.documents import without_formula
from robust_edge.sweep.grid import Axis, short_names
from robust_edge.sweep.results import Row

Cost = Callable[[Row], float | None]
COSTS: dict[str, Cost] = {
    "bytes": lambda row: row.bytes,
    "macs": lambda row: row.macs,
    "latency": lambda row: row.latency_ns,
}
"""What a network costs, by name; None where it was not measured."""

REPEATABLE = ("bytes", "macs")  # the costs that are equal on every run


def front(rows: Sequence[Row], cost: Cost) -> list[int]:
    """Indices of the rows that no other row dominates, in the order of their cost.

    A row dominates another one if neither its robust accuracy nor its cost is worse and one of them is better. Rows
    without the cost are left out.
    """
    known = [(price, -row.attacked.robust, i) for i, row in enumerate(rows) if (price := cost(row)) is not None]
    return [i for price, loss, i in sorted(known) if not any(_dominates(other[:2], (price, loss)) for other in known)]


def _dominates(left: tuple[float, float], right: tuple[float, float]) -> bool:
    return left != right and left[0] <= right[0] and left[1] <= right[1]


def pareto_csv(axes: Sequence[Axis], rows: Sequence[Row]) -> str:
    """What is equal, byte for byte, when the sweep is repeated: everything but measured times."""
    fronts = {name: set(front(rows, COSTS[name])) for name in REPEATABLE}
    header = [
        "cell", *short_names([axis.key for axis in axes]), "target", "weights", "nonzero", "bytes", "macs",
        "dense macs", "clean accuracy", "robust accuracy", "attack", "images", "verdict",
        *(f"on front of {name}" for name in REPEATABLE),
    ]  # fmt: skip
    lines = [
        [
            row.cell, *row.values, row.target, row.weights, row.nonzero, row.bytes, row.macs, row.dense_macs,
            f"{row.attacked.clean:.6f}", f"{row.attacked.robust:.6f}", row.attacked.attack, row.attacked.images,
            row.verdict, *("yes" if i in fronts[name] else "no" for name in REPEATABLE),
        ]
        for i, row in enumerate(rows)
    ]  # fmt: skip
    return _written(header, lines)


def latency_csv(rows: Sequence[Row]) -> str:
    """The measured times of one image, in nanoseconds."""
    measured = set(front(rows, COSTS["latency"]))
    header = [
        "cell", "target", "robust accuracy", "p50 ns", "p90 ns", "p99 ns", "calls", "unstable", "on front of latency"
    ]  # fmt: skip
    lines = [
        [
            row.cell, row.target, f"{row.attacked.robust:.6f}", f"{time.p50_ns:.0f}", f"{time.p90_ns:.0f}",
            f"{time.p99_ns:.0f}", time.n, "yes" if time.unstable else "no", "yes" if i in measured else "no",
        ]
        for i, row in enumerate(rows)
        if (time := row.latency) is not None
    ]  # fmt: skip
    return _written(header, lines)


def _written(header: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    for line in (header, *lines):
        writer.writerow(["" if value is None else without_formula(str(value)) for value in line])
    return buffer.getvalue()
