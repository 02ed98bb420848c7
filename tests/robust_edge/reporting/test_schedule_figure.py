"""The plotted schedules are those that the training follows."""

import numpy as np
import pytest

from robust_edge.config.settings import resolve
from robust_edge.reporting.schedule_figure import schedule_panels
from robust_edge.training.schedules import schedules


@pytest.mark.parametrize("preset", ["quick", "thesis", "strong"])
@pytest.mark.parametrize("keep", [0.1, 1.0])
def test_every_panel_holds_one_value_per_epoch(preset, keep):
    config = resolve(preset=preset, flags={"pruning.keep": keep})
    plan = schedules(config)
    figure = schedule_panels(plan, config)
    for axes, values in zip(figure.axes, (plan.eps, plan.steps, plan.keep, plan.lr), strict=True):
        drawn = axes.patches[0].get_data()
        np.testing.assert_array_equal(drawn.values, values)
        np.testing.assert_array_equal(drawn.edges, np.arange(len(values) + 1) + 0.5)
        assert len(axes.patches) == (2 if keep < 1 else 1)
    if keep < 1:
        assert figure.axes[0].patches[1].get_x() == plan.masked_from + 0.5


def test_a_run_without_an_adversary_can_be_drawn():
    config = resolve(flags={"attack.eps": 0.0, "training.epochs": 1})
    schedule_panels(schedules(config), config)
