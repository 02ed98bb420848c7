"""The setting `scope` of the schemes that have a threshold."""

from __future__ import annotations

from robust_edge.settings.setting import Setting

SCOPE = Setting(
    help="range of the threshold of irregular and filter pruning",
    flag="--scope",
    choices={
        "global": "one threshold for all layers",
        "layer": "the same kept fraction in each layer",
        "macs": "irregular only: one threshold, at most keep (or pruning.macs) of the multiply-accumulates",
    },
)
