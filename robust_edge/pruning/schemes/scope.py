"""The settings `scope` and `macs` of the schemes that have a threshold."""

from __future__ import annotations

from robust_edge.settings.ranges import Interval
from robust_edge.settings.setting import Setting

SCOPE = Setting(
    help="range of the threshold of irregular, block and filter pruning",
    flag="--scope",
    choices={
        "global": "one threshold for all layers",
        "layer": "the same kept fraction in each layer",
        "macs": "irregular and block: one threshold, at most keep (or pruning.macs) of the multiply-accumulates",
    },
)
MACS = Setting(
    help="for scope `macs`: largest fraction of the dense network's multiply-accumulates; null uses keep",
    range=Interval.parse("(0, 1]"),
    noun="a fraction",
)
