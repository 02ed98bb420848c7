"""Affine: scale * x + shift per channel, from batch normalisation or arithmetic with constants."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, attributes, float32, names, unsupported
from robust_edge_exporters.native.geometry import Shape, Tensor
from robust_edge_exporters.native.operators.elementwise import elementwise


@dataclass(frozen=True, kw_only=True)
class Affine(ir.Op):
    """scale * x + shift, with one scale and shift (C,) per channel."""

    scale: ir.Array
    shift: ir.Array

    @property
    def constants(self) -> tuple[ir.Array, ...]:
        """The scale and the shift."""
        return self.scale, self.shift

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which loops over the channels, or over the features of a vector."""
        source, target = (features(t) if output.flat else t for t in (inputs[0], output))
        return (elementwise("affine", source, target, self.act, scale=self.scale, shift=self.shift),)


def features(vector: Tensor) -> Tensor:
    """View a vector of features as channels of one pixel."""
    return replace(vector, channels=vector.width, width=1, pitch=1)


def constant_operand(builder: GraphBuilder, node: Any) -> int | None:
    """Index of the constant operand of a binary node; None if both are computed."""
    return next((index for index in (0, 1) if node.input[index] in builder.constants), None)


def append_affine(builder: GraphBuilder, node: Any, which: int) -> None:
    """Append the Affine of a binary node whose operand `which` is a constant."""
    source = builder.tensor(node, 1 - which)
    shape = builder.shapes[source]
    value = per_channel(node, builder.constants[node.input[which]], shape)
    one, zero = np.ones_like(value), np.zeros_like(value)
    forms = {
        "Add": (one, value),
        "Mul": (value, zero),
        "Sub": (one, -value) if which == 1 else (-one, value),
    }
    if node.op_type == "Div":
        if which == 0:
            raise unsupported(node, "a constant divided by a tensor")
        forms["Div"] = (1.0 / value, zero)
    scale, shift = forms[node.op_type]
    builder.append(Affine(*names(node, source), scale=float32(scale), shift=float32(shift)), shape)


def per_channel(node: Any, value: np.ndarray[Any, Any], shape: Shape) -> np.ndarray[Any, Any]:
    """A constant operand as (C,) float64."""
    rank = 2 if shape.flat else 4
    full = value.reshape((1,) * max(0, rank - value.ndim) + value.shape).astype(np.float64)
    if full.ndim != rank or full.size not in (1, shape.channels) or full.shape[1] != full.size:
        raise unsupported(node, f"constant of shape {value.shape}: only one value, or one per channel")
    spread: np.ndarray[Any, Any] = np.broadcast_to(full.reshape(-1), (shape.channels,)).copy()
    return spread


def subtract_or_divide(builder: GraphBuilder, node: Any) -> None:
    """Import Sub or Div of a tensor and a constant."""
    which = constant_operand(builder, node)
    if which is None:
        raise unsupported(node, "of two computed tensors; only Add and Mul are")
    append_affine(builder, node, which)


def batch_norm(builder: GraphBuilder, node: Any) -> None:
    """Import BatchNormalization in inference mode."""
    source = builder.tensor(node, 0)
    if attributes(node).get("training_mode", 0):
        raise unsupported(node, "in training mode; export the network in evaluation mode")
    gain, bias, mean, variance = (np.asarray(builder.constant(node, index), np.float64) for index in range(1, 5))
    scale = gain / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
    op = Affine(*names(node, source), scale=float32(scale), shift=float32(bias - mean * scale))
    builder.append(op, builder.shapes[source])


ONNX = {"BatchNormalization": batch_norm, "Div": subtract_or_divide, "Sub": subtract_or_divide}
