"""The settings of PGD that the training has, too. The config reads them, so nothing here imports torch."""

from __future__ import annotations

from robust_edge.settings.ranges import Interval
from robust_edge.settings.setting import Setting

STEPS = Setting(help="gradient steps per start, s", range=Interval.parse("[1, inf)"))
STEP_SIZE = Setting(help="step size α; null uses 2.5·ε/s", range=Interval.parse("(0, inf)"))
