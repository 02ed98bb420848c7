"""Slice, Split, Gather and GatherND with constant indices: a part of a tensor, as a view."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from robust_edge_exporters.native.builder import GraphBuilder, attributes, unsupported


def slice_(builder: GraphBuilder, node: Any) -> None:
    """Import Slice with any steps."""
    view = builder.view(node, 0)
    starts, ends, axes, steps = (
        builder.integers(node, index, name) for index, name in enumerate(("starts", "ends", "axes", "steps"), 1)
    )
    if starts is None or ends is None:
        raise unsupported(node, "without starts or ends")
    parts = [slice(None)] * view.index.ndim
    for axis, start, end, step in zip(
        axes or range(len(starts)), starts, ends, steps or [1] * len(starts), strict=False
    ):
        beyond = step < 0 and end < -view.index.shape[axis]
        parts[axis] = slice(start, None if beyond else end, step)
    builder.add_view(node.output[0], replace(view, index=view.index[tuple(parts)]))


def split(builder: GraphBuilder, node: Any) -> None:
    """Import Split into parts of given or nearly equal sizes."""
    view, axis = builder.view(node, 0), attributes(node).get("axis", 0)
    sizes, size = builder.integers(node, 1, "split"), view.index.shape[axis]
    if sizes is None:
        part = -(-size // len(node.output))
        sizes = [min(part, size - first) for first in range(0, size, part)]
    ends = np.cumsum(sizes)
    for output, first, last in zip(node.output, ends - sizes, ends, strict=True):
        builder.add_view(output, replace(view, index=view.index.take(range(first, last), axis)))


def gather(builder: GraphBuilder, node: Any) -> None:
    """Import Gather with constant indices."""
    view, axis = builder.view(node, 0), attributes(node).get("axis", 0)
    index = np.take(view.index, builder.required(node, 1).astype(np.int64), axis)
    builder.add_view(node.output[0], replace(view, index=index))


def gather_nd(builder: GraphBuilder, node: Any) -> None:
    """Import GatherND with constant indices."""
    view, batch_dims = builder.view(node, 0), attributes(node).get("batch_dims", 0)
    if batch_dims:
        raise unsupported(node, f"with batch_dims {batch_dims}: only 0")
    places = tuple(np.moveaxis(builder.required(node, 1).astype(np.int64), -1, 0))
    builder.add_view(node.output[0], replace(view, index=view.index[places]))


ONNX = {"Gather": gather, "GatherND": gather_nd, "Slice": slice_, "Split": split}
