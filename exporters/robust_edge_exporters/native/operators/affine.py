"""Affine: scale * x + shift per channel, from batch normalisation or arithmetic with constants."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, attributes, float32, names, unsupported
from robust_edge_exporters.native.geometry import Tensor
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
    value = per_channel(builder, node, 1 - which, node.input[which])
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
    scale, shift = (float32(array) for array in forms[node.op_type])
    builder.append_elementwise(node, 1 - which, lambda source: Affine(*names(node, source), scale=scale, shift=shift))


def per_channel(builder: GraphBuilder, node: Any, index: int, constant: str) -> np.ndarray[Any, Any]:
    """A constant as (C,) float64, one value for each channel of the tensor that input `index` lists the elements of.

    Raises:
        ExportError: the constant has several values for one channel, or depends on the number of images.
    """
    found = one_per_channel(builder, node, index, constant)
    if found is None:
        shape = builder.constants[constant].shape
        raise unsupported(node, f"constant of shape {shape}: only one value, or one per channel")
    return found


def one_per_channel(builder: GraphBuilder, node: Any, index: int, constant: str) -> np.ndarray[Any, Any] | None:
    """As `per_channel`; None if the constant has several values for one channel."""
    value, view = builder.constants[constant], builder.view(node, index)
    shape, dims = builder.shapes[view.tensor], view.index.shape
    if constant in builder.of_batch:
        raise unsupported(node, "computes with the number of images of a batch")
    if not view.permutes(shape):
        view = replace(view, tensor=builder.tensor(node, index), index=np.arange(view.index.size).reshape(dims))
        shape = builder.shapes[view.tensor]
    try:
        spread = np.broadcast_to(value.astype(np.float64), dims)
    except ValueError as cause:
        raise unsupported(node, f"constant of shape {value.shape} does not fit a tensor of {dims}") from cause
    elements = np.empty(view.index.size)
    elements[view.index.reshape(-1)] = spread.reshape(-1)
    by_channel = elements.reshape(len(spread), shape.channels, shape.pixels)
    found: np.ndarray[Any, Any] = by_channel[0, :, 0].copy()
    return found if (by_channel == found[:, None]).all() else None


def subtract_or_divide(builder: GraphBuilder, node: Any) -> None:
    """Import Sub or Div of a tensor and a constant."""
    which = constant_operand(builder, node)
    if which is None:
        raise unsupported(node, "of two computed tensors; only Add and Mul are")
    append_affine(builder, node, which)


def batch_norm(builder: GraphBuilder, node: Any) -> None:
    """Import BatchNormalization in inference mode."""
    if attributes(node).get("training_mode", 0):
        raise unsupported(node, "in training mode; export the network in evaluation mode")
    gain, bias, mean, variance = (np.asarray(builder.constant(node, index), np.float64) for index in range(1, 5))
    scale = gain / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
    append_scale_and_shift(builder, node, float32(scale), float32(bias - mean * scale))


def append_scale_and_shift(builder: GraphBuilder, node: Any, scale: ir.Array, shift: ir.Array) -> None:
    """Append the Affine of a node whose scale (C,) and shift (C,) belong to axis 1 of its input 0."""
    source = builder.tensor(node, 0)
    shape = builder.shapes[source]
    builder.append(Affine(*names(node, source), scale=scale, shift=shift), shape, builder.row_order(node, shape))


ONNX = {"BatchNormalization": batch_norm, "Div": subtract_or_divide, "Sub": subtract_or_divide}
