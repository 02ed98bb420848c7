"""Pad: pixels around a tensor, constant, reflected, repeated or cyclic, as a view."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from robust_edge_exporters.native.builder import GraphBuilder, attributes, unsupported
from robust_edge_exporters.native.views import Indices

MODES = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}


def pad(builder: GraphBuilder, node: Any) -> None:
    """Import Pad; negative padding cuts."""
    view, values = builder.view(node, 0), attributes(node)
    pads, rank = builder.integers(node, 1, "pads") or [], view.index.ndim
    axes = [axis % rank for axis in builder.integers(node, 3, "axes") or range(rank)]
    widths = [(0, 0)] * rank
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        widths[axis] = (before, after)
    given, mode = builder.constant(node, 2), values.get("mode", "constant")
    fill = float(values.get("value", 0.0) if given is None or given.size == 0 else given.item())
    if mode != "constant" and mode not in MODES:
        raise unsupported(node, f"mode {mode}")
    if mode == "constant" and fill != view.fill and (view.index < 0).any():
        raise unsupported(node, f"pads with {fill} what is padded with {view.fill} already")
    builder.add_view(node.output[0], replace(view, index=padded(view.index, widths, mode), fill=fill))


def padded(index: Indices, widths: list[tuple[int, int]], mode: str) -> Indices:
    """The index of a padded tensor."""
    inner = tuple(
        slice(max(0, -before), size - max(0, -after)) for (before, after), size in zip(widths, index.shape, strict=True)
    )
    grown = [(max(0, before), max(0, after)) for before, after in widths]
    if mode == "constant":
        return np.pad(index[inner], grown, constant_values=-1)
    return np.pad(index[inner], grown, mode=MODES[mode])  # type: ignore[call-overload,no-any-return]


ONNX = {"Pad": pad}
