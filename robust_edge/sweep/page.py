"""The page of a sweep, self-contained HTML: robust accuracy against every cost, and one row per network."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from importlib import resources

from jinja2 import Environment, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from robust_edge import reporting
from robust_edge.reporting import formats
from robust_edge.reporting.drawing import GREY, RIGHT, style, svg_uri
from robust_edge.reporting.page import STYLE
from robust_edge.sweep.grid import short_names
from robust_edge.sweep.pareto import COSTS, front
from robust_edge.sweep.plan import Plan
from robust_edge.sweep.results import DONE, Row, SweepResult
from robust_edge_runtimes.core.version import __version__
from robust_edge_runtimes.present.tables import percent

TEMPLATE = "pareto.html.j2"
WIDTH, HEIGHT = 9.6, 3.7
CLOSE = 0.03  # of the width and the height
LABELLED = 40  # more numbers would hide each other; then only those of the front are written
AXIS_NAMES = {"bytes": "bytes of the artifact", "macs": "multiply-accumulates", "latency": "one image, median"}


def render(plan: Plan, result: SweepResult) -> str:
    """The page as text; it has no date, so that equal results give equal pages."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    for function in (percent, formats.size, formats.duration, formats.with_thousands):
        environment.filters[function.__name__] = function
    environment.globals["time_unit"] = formats.time_unit
    costs = [name for name, cost in COSTS.items() if any(cost(row) is not None for row in result.rows)]
    template = resources.files(__package__).joinpath(TEMPLATE).read_text("utf-8")
    return environment.from_string(template).render(
        style=resources.files(reporting).joinpath(STYLE).read_text("utf-8"),
        name=plan.folder.resolve().name,
        plan=plan,
        keys=short_names([axis.key for axis in plan.axes]),
        steps=[shlex.join([step.command, *step.words]) for step in plan.steps],
        rows=result.rows,
        open_cells=[cell for cell in result.cells if cell.state != DONE],
        cells=result.cells,
        notes=result.notes,
        fronts={name: front(result.rows, COSTS[name]) for name in costs},
        figure=svg_uri(fronts_figure(result.rows, costs)) if costs else None,
        version=__version__,
    )


def fronts_figure(rows: Sequence[Row], costs: Sequence[str]) -> Figure:
    """Robust accuracy against each cost; the points are numbered as the rows of the table.

    Args:
        rows: all networks.
        costs: names of COSTS; each is known for at least one row.
    """
    with style():
        figure = Figure((WIDTH, HEIGHT))
        panels = figure.subplots(1, len(costs), squeeze=False, sharey=True, gridspec_kw={"wspace": 0.16})[0]
        for axes, name in zip(panels, costs, strict=True):
            _panel(axes, rows, name)
        panels[0].yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        panels[0].yaxis.set_major_formatter(PercentFormatter(1))
        panels[0].set_ylabel("robust accuracy")
    return figure


def _panel(axes: Axes, rows: Sequence[Row], name: str) -> None:
    best = front(rows, COSTS[name])
    points = {i: (price, row.attacked.robust) for i, row in enumerate(rows) if (price := COSTS[name](row)) is not None}
    others = [i for i in points if i not in best]
    axes.plot(*zip(*(points[i] for i in best), strict=True), color=RIGHT, drawstyle="steps-post", linewidth=1.2)
    for chosen, colour, size in ((others, GREY, 18), (best, RIGHT, 34)):
        axes.scatter([points[i][0] for i in chosen], [points[i][1] for i in chosen], s=size, color=colour, zorder=3)
    named = {i: points[i] for i in (points if len(points) <= LABELLED else best)}
    for group in _together(named):
        colour, text = RIGHT if {*group} & {*best} else GREY, ", ".join(str(i + 1) for i in group)
        axes.annotate(text, points[group[0]], (4, 4), textcoords="offset points", fontsize=7.5, color=colour)
    axes.set_xlabel(AXIS_NAMES[name])
    axes.set_xlim(left=0, right=1.12 * max(price for price, _ in points.values()))
    axes.margins(y=0.12)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _cost(name, value)))


def _together(points: Mapping[int, tuple[float, float]]) -> list[list[int]]:
    """Groups of points that lie so close together that each of their numbers would hide the others."""
    width = max(x for x, _ in points.values()) or 1.0
    height = max(y for _, y in points.values()) - min(y for _, y in points.values()) or 1.0
    groups: list[list[int]] = []
    for i, (x, y) in points.items():
        near = (
            group
            for group in groups
            if abs(points[group[0]][0] - x) < CLOSE * width and abs(points[group[0]][1] - y) < CLOSE * height
        )
        found = next(near, None)
        if found is None:
            groups.append([i])
        else:
            found.append(i)
    return groups


def _cost(name: str, value: float) -> str:
    if name == "bytes":
        return formats.size(value)
    if name == "latency":
        unit, length = formats.time_unit(value)
        return f"{value / length:.3g} {unit}"
    return f"{value / 1e6:.3g} M"
