"""The figures of the report. Each function takes data and returns a matplotlib Figure; none reads or writes files.

The figures do not use pyplot, which needs a window system and has global state.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from robust_edge.evaluation.curve import CurveResult
from robust_edge.reporting.collect import RunData, clean_text
from robust_edge.reporting.drawing import GREY, RIGHT, WRONG, line_style, style
from robust_edge.reporting.formats import duration, radius, time_unit, with_thousands
from robust_edge_runtimes.bench.protocols import N_IMAGES, ONE_IMAGE
from robust_edge_runtimes.bench.results import Bench, Latency
from robust_edge_runtimes.core.manifest import Sparsity
from robust_edge_runtimes.present.tables import percent

WIDTH = 9.6
MAX_COLUMNS = 10
ROW = 1.24
LABEL = 26
PATCH = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}


def kept_weights(sparsities: Sequence[tuple[RunData, Sparsity]]) -> Figure:
    """Kept fraction of every layer; a dashed line shows the kept fraction of the whole network.

    Args:
        sparsities: at least one run; all networks have the same layers.
    """
    layers = sparsities[0][1].layers
    rows, height = np.arange(len(layers)), 0.8 / len(sparsities)
    inches = max(1.6, len(layers) * (0.14 + 0.14 * len(sparsities)) + 0.8)
    with style():
        figure = Figure((WIDTH, inches))
        axes = figure.add_subplot()
        for index, (run, sparsity) in enumerate(sparsities):
            kept = [layer.keep for layer in sparsity.layers]
            place = rows + (index - (len(sparsities) - 1) / 2) * height
            colour = line_style(run.index).colour
            axes.barh(place, kept, height * 0.92, color=colour, label=_label(run.name))
            for y, layer in zip(place, sparsity.layers, strict=True):
                axes.text(layer.keep + 0.008, y, percent(layer.keep), va="center", fontsize=7.5, bbox=PATCH)
            axes.axvline(sparsity.keep, color=colour, linestyle="--", linewidth=1.2, zorder=1.5)
        axes.set_yticks(rows, [f"{layer.name}  ({with_thousands(layer.weights)})" for layer in layers])
        axes.set_xlim(0, 1.08)
        axes.set_ylim(len(layers) - 0.5, -0.5)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("weights that are not zero (dashed: all layers together)")
        _legend_above(axes)
    return figure


def accuracy_curves(curves: Sequence[tuple[RunData, CurveResult]]) -> Figure:
    """Robust accuracy against ε (Algorithm 2) with 95% intervals, and the chance level.

    Source: Marshall 2020, figure 4.5.
    """
    with style():
        figure = Figure((WIDTH, 4.0))
        axes = figure.add_subplot()
        for run, curve in curves:
            eps = [point.eps for point in curve.points]
            line = line_style(run.index)
            values = [point.accuracy.value for point in curve.points]
            low, high = zip(*((point.accuracy.low, point.accuracy.high) for point in curve.points), strict=True)
            axes.fill_between(eps, low, high, color=line.colour, alpha=0.15, linewidth=0)
            axes.plot(
                eps,
                values,
                color=line.colour,
                linestyle="--" if run.sparse else line.dash,
                marker=line.marker,
                markersize=4.5,
                linewidth=1.8,
                label=_label(run.name),
            )
        for chance in sorted({curve.chance for _, curve in curves}):
            axes.axhline(
                chance, color=GREY, linestyle=(0, (1, 1.5)), linewidth=1.3, label=f"chance ({percent(chance)})"
            )
        _mark_training_eps(axes, [run for run, _ in curves])
        axes.set_xlim(left=0)
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("ε, ℓ∞ radius of the attack in pixel units on [0, 1]")
        axes.set_ylabel("right when clean and under attack")
        axes.legend(loc="upper right", frameon=True, framealpha=0.9, edgecolor="none")
    return figure


def weight_histograms(runs: Sequence[RunData]) -> Figure:
    """Histograms of the non-zero prunable weights on a log axis; the legend gives the number of zeros.

    Source: Marshall 2020, figures 4.1 and 4.2.
    """
    with style():
        figure = Figure((WIDTH, 3.6))
        axes = figure.add_subplot()
        for run in runs:
            if run.weights is None:
                continue
            line, weights = line_style(run.index), run.weights
            zeros = f", {with_thousands(weights.zeros)} zero (not drawn)" if weights.zeros else ""
            label = f"{_label(run.name)}: {with_thousands(weights.nonzero)} non-zero{zeros}"
            axes.stairs(weights.counts, weights.edges, color=line.colour, linewidth=1.5, label=label)
            if run.sparse:
                axes.stairs(weights.counts, weights.edges, color=line.colour, alpha=0.2, fill=True, zorder=0.9)
        _log_scale(axes)
        axes.set_ylim(bottom=0.7)
        axes.set_xlabel("weight")
        axes.set_ylabel("weights per bin (log scale)")
        _legend_above(axes)
    return figure


def adversarial_loss(runs: Sequence[RunData]) -> Figure:
    """Loss on attacked training images per epoch, one panel per run; the masked phase is shaded.

    Source: Marshall 2020, figures 4.3 and 4.4.
    """
    columns = min(3, len(runs))
    rows = -(-len(runs) // columns)
    with style():
        figure = Figure((WIDTH, 2.6 * rows))
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for axes, run in zip(grid, runs, strict=False):
            _loss_panel(axes, run)
        for axes in grid[len(runs) :]:
            axes.set_visible(False)
        for axes in grid[::columns]:
            axes.set_ylabel("loss (log scale)")
        grid[0].set_ylim(bottom=grid[0].get_ylim()[0] / 2)  # room for the notes
        figure.subplots_adjust(hspace=0.55, wspace=0.08)
    return figure


def attacked_images(run: RunData, curve: CurveResult, *, images: int | None = None) -> Figure:
    """Images at increasing ε with the predicted class; colour, sign and frame show whether it is right.

    Args:
        run: a finished run, for its class names.
        curve: its curve with the stored images.
        images: number of images to show; None for all.
    """
    assert run.checkpoint is not None
    classes, panel = run.checkpoint.model.classes, curve.panel
    shown = range(len(panel.truth) if images is None else min(images, len(panel.truth)))
    steps = _spread(len(curve.points), MAX_COLUMNS)
    columns, rows = (
        MAX_COLUMNS + 0.6,
        ROW * len(shown) + 0.25,
    )  # in units of the width of an image; the same for all runs
    with style():
        figure = Figure((WIDTH, WIDTH * rows / columns))
        axes = figure.add_axes((0, 0, 1, 1))  # one Axes for all images: one per image takes seconds to draw
        for column, step in enumerate(steps):
            title = f"ε = {radius(curve.points[step].eps)}"
            axes.text(column + 0.5, -0.08, title, ha="center", fontweight="bold")
            for row, image in enumerate(shown):
                guess = panel.predicted[step][image]
                _picture(
                    axes, (column, row), panel.pixels[step][image], classes[guess], right=guess == panel.truth[image]
                )
        for row, image in enumerate(shown):
            axes.text(-0.05, ROW * row + 0.45, _cut(classes[panel.truth[image]], 8), ha="right", va="center")
        if len(steps) < MAX_COLUMNS and curve.points[-1].accuracy.value < curve.chance:
            axes.text(len(steps) + 0.1, 0.45, "below chance:\nthe curve ends", va="center", color=GREY)
        axes.set(xlim=(-0.6, MAX_COLUMNS), ylim=(rows - 0.25, -0.25))
        axes.axis("off")
    return figure


def latency_bars(bench: Bench) -> Figure:
    """Median latency of every bundle for one image and for n images; whiskers from the minimum to p99."""
    entries = bench.entries
    with style():
        figure = Figure((WIDTH, 0.42 * len(entries) + 1.1))
        for column, protocol in enumerate((ONE_IMAGE, N_IMAGES)):
            found = [(entry, item) for entry in entries for item in entry.latencies if item.protocol == protocol]
            if not found:
                continue
            axes = figure.add_subplot(1, 2, column + 1)
            baseline = [entry.label == bench.baseline for entry, _ in found]
            _latency_panel(axes, [item for _, item in found], baseline)
            axes.set_yticks(range(len(found)), [_cut(entry.label, LABEL) for entry, _ in found])
            axes.set_ylim(len(found) - 0.5, -0.5)
        figure.tight_layout(w_pad=2.5)
    return figure


def _latency_panel(axes: Axes, latencies: Sequence[Latency], baseline: Sequence[bool]) -> None:
    unit, length = time_unit(max(item.p50_ns for item in latencies))
    for row, (item, dense) in enumerate(zip(latencies, baseline, strict=True)):
        median, low, high = (value / length for value in (item.p50_ns, item.min_ns, item.p99_ns))
        bars = axes.barh(row, median, 0.58, color="#9ca3af" if dense else RIGHT, edgecolor="white")
        if item.unstable:
            bars[0].set_hatch("///")
        axes.plot([low, high], [row, row], color="#111827", linewidth=1, marker="|", markersize=7)
        mark = "  unstable" if item.unstable else ""
        axes.text(high, row, f"  {duration(item.p50_ns, length)} {unit}{mark}", va="center", fontsize=8)
    images = latencies[0].images
    axes.set_title("one image" if latencies[0].protocol == ONE_IMAGE else f"{images} images, loading included")
    axes.set_xlim(0, 1.25 * max(item.p99_ns for item in latencies) / length)
    axes.set_xlabel(f"{unit} per call: median, whiskers min to p99")
    axes.grid(visible=False, axis="y")


def _loss_panel(axes: Axes, run: RunData) -> None:
    epochs = [row.epoch for row in run.epochs]
    loss = [row.adversarial_loss for row in run.epochs]
    axes.plot(epochs, loss, color=line_style(run.index).colour, linewidth=1.6, marker="o", markersize=2.6)
    _log_scale(axes)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    last = max(run.config.training.epochs, max(epochs))
    axes.set_xlim(0.5, last + 0.5)
    axes.set_title(_cut(run.name, LABEL))
    axes.set_xlabel("epoch" if run.config.robust else "epoch (no adversary: loss on clean images)")
    _mark_phases(axes, run, last)
    for before, row in zip(run.epochs, run.epochs[1:], strict=False):
        if row.eps > before.eps:
            axes.axvline(row.epoch - 0.5, color=GREY, linestyle=(0, (1, 1.5)), linewidth=1)
            _note(axes, row.epoch - 0.3, f"ε {radius(row.eps)}", height=0.14)


def _mark_phases(axes: Axes, run: RunData, last: int) -> None:
    if not run.sparse:
        _note(axes, 1, "dense: nothing is pruned")
        return
    start = run.masked_from
    _note(axes, 1, "ADMM" if start != 1 else "")
    if start is not None:
        axes.axvspan(start - 0.5, last + 0.5, color="#fde68a", alpha=0.55, linewidth=0, zorder=0)
        axes.axvline(start - 0.5, color="#111827", linewidth=1)
        _note(axes, start, "masked")


def _note(axes: Axes, x: float, text: str, *, height: float = 0.04) -> None:
    """Write a note at the bottom of a panel, where a decreasing loss leaves room."""
    axes.text(x, height, text, transform=axes.get_xaxis_transform(), va="bottom", fontsize=7.5)


def _mark_training_eps(axes: Axes, runs: Sequence[RunData]) -> None:
    for eps in sorted({run.config.attack.eps for run in runs if run.config.robust}):
        axes.axvline(eps, color="#111827", linewidth=0.8)
        axes.text(eps, 0.03, f" trained with ε = {radius(eps)}", fontsize=7.5, color="#1f2937")


def _picture(axes: Axes, place: tuple[int, int], pixels: list, predicted: str, *, right: bool) -> None:  # type: ignore[type-arg]
    left, top = place[0] + 0.05, place[1] * ROW
    image = np.asarray(pixels, dtype=np.float32)
    picture = image.transpose(1, 2, 0) if len(image) == 3 else image.mean(0)
    extent = (left, left + 0.9, top + 0.9, top)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest", extent=extent)
    colour = RIGHT if right else WRONG
    axes.add_patch(Rectangle((left, top), 0.9, 0.9, fill=False, edgecolor=colour, linewidth=1.2 if right else 3))
    text, weight = f"{'✓' if right else '✗'} {_cut(predicted, 9)}", "normal" if right else "bold"
    size = 9 if len(text) < 8 else 7.5
    axes.text(left + 0.45, top + 0.96, text, color=colour, fontweight=weight, fontsize=size, ha="center", va="top")


def _spread(count: int, most: int) -> list[int]:
    """At most `most` evenly spaced indices below `count`, including the first and the last."""
    return sorted({round(index) for index in np.linspace(0, count - 1, min(count, most))})


def _legend_above(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)


def _log_scale(axes: Axes) -> None:
    """A log y axis with plain numbers: powers of ten need math text, which is off because names may contain $."""
    axes.set_yscale("log", nonpositive="clip")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _label(name: str) -> str:
    """A legend entry; matplotlib would omit one that begins with an underscore."""
    return _cut(name if not name.startswith("_") else f" {name}", 2 * LABEL)


def _cut(text: str, length: int) -> str:
    whole_text = clean_text(
        text
    )  # a class name may come from a folder name that is not UTF-8, which the font cannot draw
    return whole_text if len(whole_text) <= length else whole_text[: length - 1] + "…"
