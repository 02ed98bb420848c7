"""AveragePool: the mean over a sliding window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, attributes, names
from robust_edge_exporters.native.geometry import Tensor, Window
from robust_edge_exporters.native.operators.window import pooled, pooling


@dataclass(frozen=True, kw_only=True)
class AveragePool(ir.Op):
    """The mean over a window; with `count_padding` padded pixels are included in the divisor."""

    window: Window
    count_padding: bool = False

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which loops over the taps of each pixel."""
        more = {"count_padding": int(self.count_padding)}
        return (pooling("average_pool", inputs[0], output, self.window, self.act, **more),)


def average_pool(builder: GraphBuilder, node: Any) -> None:
    """Import AveragePool."""
    source = builder.tensor(node, 0)
    window, shape = pooled(node, builder.shapes[source])
    count_padding = bool(attributes(node).get("count_include_pad", 0))
    builder.append(
        AveragePool(*names(node, source), window=window, count_padding=count_padding),
        shape,
        builder.row_order(node, shape),
    )


ONNX = {"AveragePool": average_pool}
