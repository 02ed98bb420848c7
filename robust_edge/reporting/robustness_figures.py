"""Figures of transfer, of accuracy against compression, and of input gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from robust_edge.evaluation.accuracy import Accuracy
from robust_edge.evaluation.curve import CurveResult
from robust_edge.evaluation.saliency import Saliency
from robust_edge.evaluation.transfer import Transfer, TransferCurve
from robust_edge.reporting.collect import RunData, clean_text
from robust_edge.reporting.drawing import RIGHT, WRONG, line_style, style
from robust_edge.reporting.formats import radius

WIDTH = 9.6
AMPLIFIED = 10
SHOWN = 28


def transfer_panels(transfer: Transfer) -> Figure:
    """One panel per source: the source itself (white box) in black, the other targets in colour, 95% intervals.

    Source: Marshall 2020, figures 4.6 and C.2.
    """
    columns = min(2, len(transfer.sources))
    rows = -(-len(transfer.sources) // columns)
    places = {network.name: index for index, network in enumerate(transfer.networks)}
    with style():
        figure = Figure((WIDTH, 3.3 * rows))
        grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
        for axes, source in zip(grid, transfer.sources, strict=False):
            for curve in transfer.curves:
                if curve.source == source:
                    _transfer_curve(axes, curve, places[curve.target])
            axes.set_title(f"images made on {_cut(source)}")
            axes.set(xlim=(0, None), ylim=(0, 1.02), xlabel="ε, ℓ∞ radius in pixel units on [0, 1]")
            axes.yaxis.set_major_formatter(PercentFormatter(1))
            axes.legend(loc="lower left")
        for axes in grid[len(transfer.sources) :]:
            axes.set_visible(False)
        for axes in grid[::columns]:
            axes.set_ylabel("right when clean and attacked")
        figure.subplots_adjust(hspace=0.5, wspace=0.08)
    return figure


def compression(points: Sequence[tuple[RunData, Accuracy, Accuracy]]) -> Figure:
    """Accuracy of benign networks on clean images and under FGSM against the kept fraction of the weights.

    Source: Marshall 2020, figure B.1.
    """
    with style():
        figure = Figure((WIDTH, 3.4))
        axes = figure.add_subplot()
        for network in sorted({run.checkpoint.model.arch for run, _, _ in points if run.checkpoint}):
            rows = [
                (run.checkpoint.sparsity.keep, clean, attacked)
                for run, clean, attacked in points
                if run.checkpoint is not None and run.checkpoint.model.arch == network
            ]
            rows.sort(key=lambda row: row[0])
            for name, place, colour, dash in (("benign", 1, RIGHT, "-"), ("FGSM", 2, WRONG, "--")):
                values: list[Accuracy] = [row[place] for row in rows]  # type: ignore[misc]
                middle = [value.value for value in values]
                errors = [[v.value - v.low for v in values], [v.high - v.value for v in values]]
                axes.errorbar(
                    [row[0] for row in rows],
                    middle,
                    yerr=errors,
                    color=colour,
                    linestyle=dash,
                    marker="o",
                    capsize=3,
                    label=f"{_cut(network)}, {name}",
                )
        axes.set(xlim=(0, 1.05), ylim=(0, 1.05), xlabel="weights kept", ylabel="accuracy")
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.legend(loc="lower right")
    return figure


def saliency_panel(runs: Sequence[tuple[RunData, Saliency]], *, images: int = 8) -> Figure:
    """The images, and below them, for each run, the signed gradient of the logit of the true class.

    Brighter purple pixels raise the logit of the true class, brighter orange ones lower it. Every image has a scale of
    its own.
    """
    shown = runs[0][1].images[:images]
    with style():
        figure = Figure((WIDTH, WIDTH / (len(shown) + 1.4) * (len(runs) + 1) * 1.04))
        grid = figure.subplots(len(runs) + 1, len(shown), squeeze=False)
        shape = runs[0][1].shape
        for axes, image in zip(grid[0], shown, strict=True):
            _picture(axes, np.asarray(image.pixels, dtype=np.float32).reshape(shape))
        grid[0][0].set_ylabel("image", rotation=0, ha="right", va="center")
        for row, (run, saliency) in zip(grid[1:], runs, strict=True):
            for axes, image in zip(row, saliency.images[:images], strict=True):
                slope = np.asarray(image.gradient, dtype=np.float32).reshape(shape).sum(0)
                limit = float(np.abs(slope).max()) or 1.0
                axes.imshow(slope, cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest")
                _bare(axes)
            row[0].set_ylabel(_cut(run.name), rotation=0, ha="right", va="center")
        figure.subplots_adjust(left=1.4 / (len(shown) + 1.4), right=0.995, top=0.995, bottom=0.005, wspace=0.05)
    return figure


def blind_spots(run: RunData, curve: CurveResult, *, images: int = 3) -> Figure | None:
    """Correctly classified images, ten times the perturbation of the smallest ε that changes the class, and the sum.

    Source: Marshall 2020, figure A.1. None if no stored image is right when clean and wrong under attack.
    """
    assert run.checkpoint is not None
    classes, panel = run.checkpoint.model.classes, curve.panel
    found = []
    for place, truth in enumerate(panel.truth):
        wrong = [step for step in range(1, len(curve.points)) if panel.predicted[step][place] != truth]
        if panel.predicted[0][place] == truth and wrong:
            found.append((place, wrong[0]))
    if not found:
        return None
    with style():
        figure = Figure((WIDTH * 0.62, 1.95 * len(found[:images])))
        grid = figure.subplots(len(found[:images]), 3, squeeze=False)
        for row, (place, step) in zip(grid, found, strict=False):
            clean = np.asarray(panel.pixels[0][place], dtype=np.float32)
            seen = np.asarray(panel.pixels[step][place], dtype=np.float32)
            noise: np.ndarray = np.clip(0.5 + AMPLIFIED * (seen - clean) / 2, 0, 1)
            pictures = (clean, noise, seen)
            labels = (
                f"✓ {classes[panel.predicted[0][place]]}",
                f"noise × {AMPLIFIED}, ε = {radius(curve.points[step].eps)}",
                f"✗ {classes[panel.predicted[step][place]]}",
            )
            for axes, pixels, text in zip(row, pictures, labels, strict=True):
                _picture(axes, pixels)
                axes.set_xlabel(_cut(text))
        figure.tight_layout()
    return figure


def _transfer_curve(axes: Axes, curve: TransferCurve, place: int) -> None:
    eps = [0.0, *(point.eps for point in curve.points)]
    values = [curve.clean, *(point.accuracy for point in curve.points)]
    white = curve.source == curve.target
    colour = "#000000" if white else line_style(place).colour
    axes.fill_between(eps, [v.low for v in values], [v.high for v in values], color=colour, alpha=0.12, linewidth=0)
    axes.plot(
        eps,
        [value.value for value in values],
        color=colour,
        marker="X" if white else line_style(place).marker,
        markersize=4,
        linewidth=1.7,
        label=f" {_cut(curve.target)}" + (" (white box)" if white else ""),
    )


def _picture(axes: Axes, pixels: np.ndarray) -> None:
    picture = pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels.mean(0)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    _bare(axes)


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)


def _cut(text: str) -> str:
    whole = clean_text(text)
    return whole if len(whole) <= SHOWN else whole[: SHOWN - 1] + "…"
