"""A graph of integers as a torch module: the codes and the logits of the int8 engine, bit for bit, with gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_edge.int8.straight_through import LookUp, Requantise, straight_through, sum_dtype
from robust_edge_exporters.native import ir
from robust_edge_exporters.native.geometry import Shape, Window
from robust_edge_exporters.native.int8 import ops
from robust_edge_exporters.native.int8.arithmetic import LARGEST_CODE


class Int8Network(nn.Module):
    """The operators of a graph, in its order; (N, C, H, W) raw pixels to (N, K) logits.

    Raises:
        KeyError: the graph has an operator that is none of the int8 engine.
    """

    def __init__(self, network: ops.Int8Graph) -> None:
        super().__init__()
        graph = network.graph
        self._input, self._output = graph.input, graph.output
        self._names = [(op.reads, op.output) for op in graph.ops]
        self.layers = nn.ModuleList(LAYERS[type(op)](op) for op in graph.ops)

    def forward(self, images: Tensor) -> Tensor:
        """Logits as the engine computes them."""
        tensors = {self._input: images}
        for (inputs, output), layer in zip(self._names, self.layers, strict=True):
            tensors[output] = layer(*(tensors[name] for name in inputs))
        return tensors[self._output]


class QuantiseImages(nn.Module):
    """Codes of pixels."""

    scale: Tensor
    shift: Tensor

    def __init__(self, op: ops.Quantise) -> None:
        super().__init__()
        self.register_buffer("scale", torch.from_numpy(op.scale.astype(np.float64))[:, None, None])
        self.register_buffer("shift", torch.from_numpy(op.shift.astype(np.float64))[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """The largest pixel has 255 and the half of the rounding, so that what is cut off begins at 256."""
        scaled = torch.nan_to_num(images.double() * self.scale + self.shift, nan=0.0)
        inside = scaled.clamp(0, LARGEST_CODE + 1 - 2.0**-20)
        return straight_through(inside.float(), inside.detach().floor().float())


class ConvCodes(nn.Module):
    """Convolution."""

    weight: Tensor
    bias: Tensor

    def __init__(self, op: ops.QuantConv) -> None:
        super().__init__()
        _register(self, op)
        self.window, self.groups, self.padding = op.window, op.groups, op.padding
        self.requantise = Requantise(op.requantisation, dims=2)

    def forward(self, codes: Tensor, residual: Tensor | None = None) -> Tensor:
        """Sums from the bias on, then codes."""
        window = self.window
        size = window.output(Shape(*codes.shape[1:]))
        framed = framed_by(codes.to(self.weight.dtype), window, size, self.padding)
        sums = functional.conv2d(
            framed, self.weight, self.bias, window.strides, 0, window.dilations, groups=self.groups
        )
        found: Tensor = self.requantise(sums, residual)
        return found


class LinearCodes(nn.Module):
    """Matrix product, to codes or to logits."""

    weight: Tensor
    bias: Tensor
    scales: Tensor

    def __init__(self, op: ops.QuantLinear) -> None:
        super().__init__()
        _register(self, op)
        self.requantise = None if op.requantisation is None else Requantise(op.requantisation)
        if op.scales is not None:
            self.register_buffer("scales", torch.from_numpy(op.scales.copy()))

    def forward(self, codes: Tensor) -> Tensor:
        """The float32 of a sum is rounded once, and its product with the scale once more."""
        sums = functional.linear(codes.to(self.weight.dtype), self.weight, self.bias)
        return sums.float() * self.scales if self.requantise is None else self.requantise(sums)


class AddCodes(nn.Module):
    """Sum of two tensors."""

    def __init__(self, op: ops.QuantAdd) -> None:
        super().__init__()
        self.bias = int(op.requantisation.bias[0])
        self.requantise = Requantise(op.requantisation)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The bias contains the first tensor's zero."""
        codes: Tensor = self.requantise(first + self.bias, second)
        return codes


class MulCodes(nn.Module):
    """Product of two tensors; the second may have planes of one pixel."""

    def __init__(self, op: ops.QuantMul) -> None:
        super().__init__()
        self.zeros, self.bias = op.zeros, int(op.requantisation.bias[0])
        self.requantise = Requantise(op.requantisation)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Product of what the codes stand for."""
        codes: Tensor = self.requantise((first - self.zeros[0]) * (second - self.zeros[1]) + self.bias)
        return codes


class MeanCodes(nn.Module):
    """Mean of each plane."""

    def __init__(self, op: ops.QuantMean) -> None:
        super().__init__()
        self.flat, self.bias = op.flat, int(op.requantisation.bias[0])
        self.requantise = Requantise(op.requantisation)

    def forward(self, codes: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C) or (N, C, 1, 1)."""
        found: Tensor = self.requantise(codes.sum(dim=(2, 3), dtype=torch.float64) + self.bias)
        return found if self.flat else found[:, :, None, None]


class MaxPoolCodes(nn.Module):
    """The largest code of a window; -1 is smaller than any code."""

    def __init__(self, op: ops.QuantMaxPool) -> None:
        super().__init__()
        self.window, self.size = op.window, op.size

    def forward(self, codes: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, P, Q)."""
        window = self.window
        framed = framed_by(codes, window, self.size, -1)
        return functional.max_pool2d(framed, window.kernel, window.strides, 0, window.dilations)


class AveragePoolCodes(nn.Module):
    """The mean code of a window."""

    def __init__(self, op: ops.QuantAveragePool) -> None:
        super().__init__()
        self.size, self.padding, self.pads = op.size, op.padding, op.window.pads
        self.window = op.window if op.padding is None else replace(op.window, pads=(0, 0, 0, 0))

    def forward(self, codes: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, P, Q)."""
        if self.padding is not None:
            top, left, bottom, right = self.pads
            codes = functional.pad(codes, (left, right, top, bottom), value=self.padding)
        sums, number = self._sum(codes), self._sum(torch.ones_like(codes[:1, :1]))
        rounded = torch.div(2 * sums.detach() + number, 2 * number, rounding_mode="floor")
        return straight_through(sums / number, rounded)

    def _sum(self, values: Tensor) -> Tensor:
        """The sums of the windows; pixels around the image count nothing."""
        window, (height, width) = self.window, self.size
        framed, total = framed_by(values, window, self.size, 0), torch.zeros((), device=values.device)
        for ky, kx in itertools.product(range(window.kernel[0]), range(window.kernel[1])):
            rows = framed[:, :, ky * window.dilations[0] :: window.strides[0]][:, :, :height]
            total = total + rows[..., kx * window.dilations[1] :: window.strides[1]][..., :width]
        return total


class FlattenCodes(nn.Module):
    """(N, C, H, W) to (N, C * H * W)."""

    def __init__(self, op: ops.QuantFlatten) -> None:
        super().__init__()

    def forward(self, codes: Tensor) -> Tensor:
        """In the order of the image."""
        return codes.flatten(1)


class ConcatCodes(nn.Module):
    """Concatenation along the channels."""

    def __init__(self, op: ops.QuantConcat) -> None:
        super().__init__()

    def forward(self, *inputs: Tensor) -> Tensor:
        """All have the same coding."""
        return torch.cat(inputs, dim=1)


class DequantiseCodes(nn.Module):
    """Logits of codes."""

    scale: Tensor

    def __init__(self, op: ops.Dequantise) -> None:
        super().__init__()
        self.zero = op.zero
        self.register_buffer("scale", torch.tensor(op.scale, dtype=torch.float32))

    def forward(self, codes: Tensor) -> Tensor:
        """The product is rounded as float32."""
        return (codes - self.zero) * self.scale


LAYERS: dict[type[ir.Op], Callable[[Any], nn.Module]] = {
    ops.Quantise: QuantiseImages,
    ops.QuantConv: ConvCodes,
    ops.QuantLinear: LinearCodes,
    ops.QuantAdd: AddCodes,
    ops.QuantMul: MulCodes,
    ops.QuantTable: lambda op: LookUp(op.table),
    ops.QuantMean: MeanCodes,
    ops.QuantMaxPool: MaxPoolCodes,
    ops.QuantAveragePool: AveragePoolCodes,
    ops.QuantFlatten: FlattenCodes,
    ops.QuantConcat: ConcatCodes,
    ops.Dequantise: DequantiseCodes,
}


def framed_by(values: Tensor, window: Window, size: tuple[int, int], fill: int) -> Tensor:
    """The pixels that the windows of `size` outputs read, with `fill` around the image; what none reads is cut off."""
    after = []
    for axis in (0, 1):
        reach = (size[axis] - 1) * window.strides[axis] + window.dilations[axis] * (window.kernel[axis] - 1) + 1
        after.append(reach - window.pads[axis] - values.shape[2 + axis])
    pads = (window.pads[1], after[1], window.pads[0], after[0])
    return functional.pad(values, pads, value=fill) if any(pads) else values


def _register(module: nn.Module, op: ir.Weighted) -> None:
    """Weights and bias in the fastest type in which their sums are exact."""
    rows = op.weight.reshape(len(op.weight), -1).astype(np.int64)
    sides = (np.maximum(side, 0).sum(axis=1) for side in (rows, -rows))
    bound = int((LARGEST_CODE * np.maximum(*sides) + np.abs(op.bias)).max(initial=0))
    for name, values in (("weight", op.weight), ("bias", op.bias)):
        module.register_buffer(name, _floats(values).to(sum_dtype(bound)))


def _floats(integers: npt.NDArray[np.integer]) -> Tensor:
    return torch.from_numpy(integers.astype(np.float64))
