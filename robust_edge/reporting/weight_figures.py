"""Weight histograms of networks that differ in one respect: in adversarial training, or in the kept fraction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.figure import Figure

from robust_edge.reporting.collect import RunData, clean_text
from robust_edge.reporting.drawing import line_style, style
from robust_edge.reporting.figures import WIDTH
from robust_edge.reporting.formats import radius
from robust_edge_runtimes.present.tables import percent

BENIGN_OR_ROBUST, BY_KEEP = "benign-or-robust", "by-keep"


@dataclasses.dataclass(frozen=True, eq=False)
class WeightFigure:
    """One figure of one architecture.

    Attributes:
        kind: BENIGN_OR_ROBUST (thesis figures 4.1 and B.2) or BY_KEEP (4.2 and B.3).
        panels: data set to the runs that share its panel.
    """

    kind: str
    arch: str
    panels: dict[str, tuple[RunData, ...]]


def weight_figures(runs: Sequence[RunData]) -> list[WeightFigure]:
    """The figures of each architecture; a panel needs networks that differ in the compared property.

    Source: Marshall 2020, figures 4.1, 4.2, B.2 and B.3.
    """
    # of an imported network it is not known how it was trained
    finished = [run for run in runs if run.weights is not None and run.imported is None]
    found = []
    for arch in sorted({run.config.arch for run in finished if run.config.arch is not None}):
        own = [run for run in finished if run.config.arch == arch]
        dense = _panels([run for run in own if not run.sparse], lambda run: run.config.robust)
        kept = _panels([run for run in own if run.config.robust], lambda run: run.config.pruning.keep)
        found += [
            WeightFigure(kind, arch, panels) for kind, panels in ((BENIGN_OR_ROBUST, dense), (BY_KEEP, kept)) if panels
        ]
    return found


def draw(figure: WeightFigure) -> Figure:
    """Share of the weights per bin, without zeros. BY_KEEP has a log axis and weights scaled to [-1, 1]."""
    log = figure.kind == BY_KEEP
    with style():
        drawn = Figure((WIDTH, 3.4))
        panels = drawn.subplots(1, len(figure.panels), squeeze=False).ravel()
        for axes, (dataset, runs) in zip(panels, figure.panels.items(), strict=True):
            for run in runs:
                assert run.weights is not None
                scale = run.weights.edges[-1] if log else 1.0
                shares = run.weights.counts / max(run.weights.nonzero + run.weights.zeros, 1)
                colour = line_style(run.index).colour
                axes.stairs(shares, run.weights.edges / scale, color=colour, linewidth=1.5, label=_label(run))
            axes.set_title(f"{figure.arch}, {clean_text(dataset)}")
            axes.set_xlabel("weight, divided by the largest of the page" if log else "weight")
            if log:
                axes.set_yscale("log", nonpositive="clip")
                axes.set_xlim(-1, 1)
            else:
                axes.set_xlim(*_middle(runs))
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1.08), borderaxespad=0.2)
        panels[0].set_ylabel("share of the weights" + (" (log scale)" if log else ""))
        drawn.tight_layout()
    return drawn


def caption(figure: WeightFigure) -> str:
    """The caption of the figure."""
    if figure.kind == BENIGN_OR_ROBUST:
        return f"Weights of dense {figure.arch} networks, trained with and without an adversary."
    return (
        f"Non-zero weights of robust {figure.arch} networks by the fraction kept: the more are pruned, the larger the "
        "others grow."
    )


def _panels(runs: Sequence[RunData], property_of: Callable[[RunData], object]) -> dict[str, tuple[RunData, ...]]:
    """Runs by data set, where they differ in the property."""
    datasets = sorted({run.config.data.dataset for run in runs})
    groups = {name: tuple(run for run in runs if run.config.data.dataset == name) for name in datasets}
    return {name: group for name, group in groups.items() if len({property_of(run) for run in group}) > 1}


def _middle(runs: Sequence[RunData]) -> tuple[float, float]:
    """The range that contains 99.9% of the weights of every run."""
    reach = 0.0
    for run in runs:
        assert run.weights is not None
        centres = np.abs((run.weights.edges[1:] + run.weights.edges[:-1]) / 2)
        order = np.argsort(centres)
        inside = np.cumsum(run.weights.counts[order]) <= 0.999 * run.weights.nonzero
        reach = max(reach, float(centres[order][min(int(inside.sum()), len(order) - 1)]))
    return -1.1 * reach, 1.1 * reach


def _label(run: RunData) -> str:
    """Name, kept fraction and accuracies, as in the legends of the thesis."""
    name = clean_text(run.name)
    text = f"{' ' if name.startswith('_') else ''}{name}: {percent(run.config.pruning.keep, 0)} kept"
    if run.result is not None:
        clean, robust, eps = run.result.clean.value, run.result.robust.value, run.result.threat.eps
    elif run.checkpoint is not None:
        metrics = run.checkpoint.metrics
        clean, robust, eps = metrics["clean_accuracy"], metrics["robust_accuracy"], metrics["attack_eps"]
    else:
        return text
    return f"{text}, acc {percent(clean)}, adv_acc {percent(robust)} at ε = {radius(eps)}"
