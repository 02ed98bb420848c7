"""The schedules of a run: ε, steps, kept fraction and learning rate over the epochs."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from robust_edge.config.compress import CompressConfig
from robust_edge.reporting.drawing import RIGHT, style
from robust_edge.reporting.figures import WIDTH
from robust_edge.training.schedules import Schedules


def schedule_panels(plan: Schedules, config: CompressConfig) -> Figure:
    """One panel per schedule, constant within an epoch; the masked phase is shaded.

    Source: Marshall 2020, section 3.1.
    """
    epochs = len(plan.eps)
    panels = (
        ("radius ε of the attack", plan.eps),
        ("steps s of the attack", plan.steps),
        ("kept fraction", plan.keep),
        ("learning rate η", plan.lr),
    )
    with style():
        figure = Figure((WIDTH, 4.2))
        for axes, (title, values) in zip(figure.subplots(2, 2).ravel(), panels, strict=True):
            axes.stairs(values, [epoch + 0.5 for epoch in range(epochs + 1)], color=RIGHT, linewidth=1.6, baseline=None)
            axes.set(title=title, xlim=(0.5, epochs + 0.5), ylim=(0, 1.08 * max(values) or 1))
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            if config.sparse:
                axes.axvspan(plan.masked_from + 0.5, epochs + 0.5, color="#fde68a", alpha=0.55, linewidth=0, zorder=0)
        figure.supxlabel("epoch" + (" (shaded: the masked phase)" if config.sparse else ""))
        figure.tight_layout()
    return figure
