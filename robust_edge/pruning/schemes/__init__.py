"""Sparsity sets: each scheme says which weights stay, name -> class, in this table."""

from __future__ import annotations

from torch import nn

from robust_edge.config.settings import PruningConfig
from robust_edge.pruning.layout import depthwise_layers, layout_of
from robust_edge.pruning.schemes.filter import Filter
from robust_edge.pruning.schemes.funnel import Funnel
from robust_edge.pruning.schemes.irregular import Irregular
from robust_edge.pruning.schemes.macs import Macs
from robust_edge.pruning.schemes.nm import NOfM, dense_by_layout
from robust_edge.pruning.schemes.redundant import Redundant, whole_by_layout
from robust_edge.pruning.schemes.scheme import Projection, Scheme, Support, Weights, masked

__all__ = ["Projection", "Scheme", "Support", "Weights", "masked", "scheme_of"]


def scheme_of(config: PruningConfig, model: nn.Module | None = None, shape: tuple[int, ...] = ()) -> Scheme:
    """The config's sparsity set for one network.

    Args:
        config: names the scheme and its settings.
        model: the network to prune, left as it was; irregular pruning without one
            takes no layer for a depthwise one.
        shape: (C, H, W) of one image.
    """
    floor = config.layer_floor
    if config.scheme == "irregular" and config.scope != "macs":
        dense = depthwise_layers(model) if model is not None and not config.prune_depthwise else frozenset[str]()
        return Irregular(scope=config.scope, floor=floor, dense=dense)
    if model is None:
        raise ValueError(f"scheme {config.scheme} (scope {config.scope}) has to see the network")
    if config.scheme == "filter":
        from robust_edge_exporters.compaction.dependencies import (
            channel_groups,  # brings a package that nothing else here needs
        )

        return Filter(groups=channel_groups(model, shape), scope=config.scope, floor=floor)
    layout = layout_of(model, shape)
    table: dict[str, Scheme] = {
        "irregular": Macs(macs_per_weight=layout.macs_per_weight, share=config.macs, floor=floor),
        "funnel": Funnel(depth=layout.depth, floor=floor),
        "redundant": Redundant(whole=whole_by_layout(layout), floor=floor),
        "nm": NOfM(n=config.n, m=config.m, dense=dense_by_layout(layout), floor=floor),
    }
    return table[config.scheme]
