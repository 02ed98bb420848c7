"""MaxPool: the maximum over a sliding window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, names
from robust_edge_exporters.native.geometry import Tensor, Window
from robust_edge_exporters.native.operators.window import pooled, pooling


@dataclass(frozen=True, kw_only=True)
class MaxPool(ir.Op):
    """The maximum over a window; padded pixels are ignored."""

    window: Window

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which loops over the taps of each row."""
        return (pooling("max_pool", inputs[0], output, self.window, self.act),)


def max_pool(builder: GraphBuilder, node: Any) -> None:
    """Import MaxPool without the output of indices."""
    source = builder.tensor(node, 0)
    window, shape = pooled(node, builder.shapes[source])
    builder.append(MaxPool(*names(node, source), window=window), shape, builder.row_order(node, shape))


ONNX = {"MaxPool": max_pool}
