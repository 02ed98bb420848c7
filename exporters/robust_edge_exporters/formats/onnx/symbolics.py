"""Operators of torch that its TorchScript exporter does not write, or only for later opsets than it could."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.onnx import register_custom_op_symbolic, symbolic_helper, symbolic_opset14  # type: ignore[attr-defined]

OLDEST = 9


@functools.cache
def register_symbolics() -> None:
    """Register them with torch, once in a process."""
    register_custom_op_symbolic("aten::channel_shuffle", _channel_shuffle, OLDEST)
    register_custom_op_symbolic(
        "aten::scaled_dot_product_attention", symbolic_opset14.scaled_dot_product_attention, OLDEST
    )


@symbolic_helper.parse_args("v", "i")
def _channel_shuffle(g: Any, x: Any, groups: int) -> Any:
    """(N, groups × C, H, W) as (N, groups, C, H, W), the two exchanged."""
    channels, *rest = symbolic_helper._get_tensor_sizes(x)[1:]
    apart = g.op("Constant", value_t=torch.tensor([-1, groups, channels // groups, *rest]))
    together = g.op("Constant", value_t=torch.tensor([-1, channels, *rest]))
    turned = g.op("Transpose", g.op("Reshape", x, apart), perm_i=[0, 2, 1, *range(3, 3 + len(rest))])
    return g.op("Reshape", turned, together)
