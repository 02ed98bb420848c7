"""The reference of the int8 engine: each operator as loops over NumPy arrays of integers, slow and exact.

The C on every instruction set, and the twin in torch, compute the same integers and the same logits, bit for bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from functools import singledispatch
from typing import Any

import numpy as np
import numpy.typing as npt

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.geometry import Shape, Window
from robust_edge_exporters.native.int8 import ops
from robust_edge_exporters.native.int8.arithmetic import LARGEST_CODE, Codes, Integers, requantise


def run(network: ops.Int8Graph, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N, K) logits of (N, C, H, W) float32 images."""
    return run_all(network, images)[network.graph.output]


def run_all(network: ops.Int8Graph, images: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
    """Every tensor by name: the image and the logits in float32, the others in codes."""
    tensors: dict[str, npt.NDArray[Any]] = {network.graph.input: images}
    for op in network.graph.ops:
        tensors[op.output] = compute(op, *(tensors[name] for name in op.reads))
    return tensors


@singledispatch
def compute(op: ir.Op, *inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The output of an operator.

    Args:
        op: the operator.
        inputs: what it reads, in the order of `op.reads`.
    """
    raise NotImplementedError(f"{type(op).__name__} is no operator of the int8 engine")


@compute.register
def quantise(op: ops.Quantise, images: npt.NDArray[np.float32]) -> Codes:
    """The product of two float32 values is exact in double precision."""
    scaled = images.astype(np.float64) * op.scale.astype(np.float64)[:, None, None] + op.shift[:, None, None]
    codes: Codes = np.floor(np.clip(np.nan_to_num(scaled, nan=0.0), 0, LARGEST_CODE)).astype(np.uint8)
    return codes


@compute.register
def conv(op: ops.QuantConv, codes: Codes, residual: Codes | None = None) -> Codes:
    """Sums of products over input channels and taps, from the bias on."""
    count, outputs = len(codes), len(op.weight)
    sums = 0
    for ky, kx, pixels in taps(codes, op.window, op.window.output(Shape(*codes.shape[1:])), op.padding):
        grouped = pixels.reshape(count, op.groups, -1, *pixels.shape[2:])
        weight = op.weight[:, :, ky, kx].reshape(op.groups, outputs // op.groups, -1).astype(np.int64)
        sums = sums + np.einsum("goi,ngihw->ngohw", weight, grouped)
    assert isinstance(sums, np.ndarray)
    sums = sums.reshape(count, outputs, *sums.shape[3:]) + op.bias[:, None, None]
    return requantise(sums, op.requantisation, residual)


@compute.register
def linear(op: ops.QuantLinear, codes: Codes) -> npt.NDArray[Any]:
    """Sums of products; the float32 of a sum is rounded once, and its product with the scale once more."""
    sums = codes.astype(np.int64) @ op.weight.astype(np.int64).T + op.bias
    if op.requantisation is not None:
        return requantise(sums, op.requantisation)
    assert op.scales is not None
    logits: npt.NDArray[np.float32] = sums.astype(np.float32) * op.scales
    return logits


@compute.register
def add(op: ops.QuantAdd, first: Codes, second: Codes) -> Codes:
    """The sum's bias contains the first tensor's zero."""
    bias = op.requantisation.bias.reshape(-1, *(1,) * (first.ndim - 2))
    return requantise(first.astype(np.int64) + bias, op.requantisation, second)


@compute.register
def mul(op: ops.QuantMul, first: Codes, second: Codes) -> Codes:
    """Product of what the codes stand for."""
    product = (first.astype(np.int64) - op.zeros[0]) * (second.astype(np.int64) - op.zeros[1])
    bias = op.requantisation.bias.reshape(-1, *(1,) * (first.ndim - 2))
    return requantise(product + bias, op.requantisation)


@compute.register
def table(op: ops.QuantTable, codes: Codes) -> Codes:
    """One look-up per code."""
    found: Codes = op.table[codes]
    return found


@compute.register
def mean(op: ops.QuantMean, codes: Codes) -> Codes:
    """(N, C, H, W) to (N, C) or (N, C, 1, 1): the sum of each plane."""
    found = requantise(codes.astype(np.int64).sum(axis=(2, 3)) + op.requantisation.bias, op.requantisation)
    return found if op.flat else found[:, :, None, None]


@compute.register
def max_pool(op: ops.QuantMaxPool, codes: Codes) -> Codes:
    """The largest of the taps; -1 is smaller than any code."""
    largest: Integers = np.max([pixels for _, _, pixels in taps(codes, op.window, op.size, -1)], axis=0)
    return largest.astype(np.uint8)


@compute.register
def average_pool(op: ops.QuantAveragePool, codes: Codes) -> Codes:
    """The sum of the taps over their number, where those on padding are counted or not."""
    padded, window = codes, op.window
    if op.padding is not None:
        top, left, bottom, right = window.pads
        padded = np.pad(codes, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=op.padding)
        window = replace(window, pads=(0, 0, 0, 0))
    sums, number = (
        np.sum([pixels for _, _, pixels in taps(image, window, op.size, 0)], axis=0)
        for image in (padded, np.ones_like(padded))
    )
    means: Codes = ((2 * sums + number) // (2 * number)).astype(np.uint8)
    return means


@compute.register
def flatten(op: ops.QuantFlatten, codes: Codes) -> Codes:
    """(N, C, H, W) to (N, C * H * W)."""
    return codes.reshape(len(codes), -1)


@compute.register
def concat(op: ops.QuantConcat, *inputs: Codes) -> Codes:
    """Along the channels."""
    return np.concatenate(inputs, axis=1)


@compute.register
def dequantise(op: ops.Dequantise, codes: Codes) -> npt.NDArray[np.float32]:
    """Logits of codes."""
    logits: npt.NDArray[np.float32] = (codes.astype(np.float32) - np.float32(op.zero)) * np.float32(op.scale)
    return logits


def taps(codes: Codes, window: Window, size: tuple[int, int], fill: int) -> Iterator[tuple[int, int, Integers]]:
    """For each tap (ky, kx) of a window the pixels that it reads, (N, C, P, Q) for each output pixel.

    Args:
        codes: (N, C, H, W).
        window: the geometry.
        size: height P and width Q of the output.
        fill: value of the pixels around the image.
    """
    ends = [
        max(0, (size[axis] - 1) * window.strides[axis] + window.dilations[axis] * (window.kernel[axis] - 1) + 1)
        for axis in (0, 1)
    ]
    widths = [(window.pads[axis], max(0, ends[axis] - window.pads[axis] - codes.shape[2 + axis])) for axis in (0, 1)]
    padded = np.pad(codes.astype(np.int64), ((0, 0), (0, 0), *widths), constant_values=fill)
    for ky, kx in itertools.product(range(window.kernel[0]), range(window.kernel[1])):
        rows, columns = (
            slice(k * window.dilations[axis], ends[axis], window.strides[axis]) for axis, k in enumerate((ky, kx))
        )
        yield ky, kx, padded[:, :, rows, columns][:, :, : size[0], : size[1]]
