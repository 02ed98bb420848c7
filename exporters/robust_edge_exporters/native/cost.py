"""The cost model: which kernel and which layout a layer gets."""

from __future__ import annotations

import numpy as np

from . import ir
from .tiling import reaches_only_inside

DENSE_DENSITY = 0.45  # above it the dense kernel's reuse of loaded pixels wins
TAPS_MAX = 49  # of a depthwise kernel
DENSE_CHANNELS = 6  # output channels of the dense register tile


def density(weight: ir.Array) -> float:
    """Fraction of weights that are not zero."""
    return float(np.count_nonzero(weight)) / weight.size


def convolution_is_sparse(op: ir.Conv, output: ir.Shape) -> bool:
    """Sparse below a density; always where a group has too few channels to fill the dense tile."""
    return op.weight.shape[0] // op.groups < DENSE_CHANNELS // 2 or density(op.weight) < DENSE_DENSITY


def linear_is_sparse(op: ir.Linear) -> bool:
    """Sparse where an indexed product costs less than streaming the row (and the index fits 16 bits)."""
    return op.weight.shape[1] <= 65536 and density(op.weight) < 0.25


def reads_in_place(op: ir.Conv, output: ir.Shape) -> bool:
    """1x1 convolutions of large planes read their input where it lies if each pixel is used a few times only."""
    window = op.window
    plain = window.kernel == (1, 1) and window.strides == (1, 1) and window.pads == (0, 0, 0, 0)
    uses = density(op.weight) * op.weight.shape[0] / op.groups
    return plain and output.pixels > 128 and uses < 8


def suits_taps(op: ir.Conv, source: ir.Shape, output: ir.Shape) -> bool:
    """Same-size convolutions of planes that fit four units, if the lists by tap are not too short."""
    window = op.window
    same = window.strides == (1, 1) and (output.height, output.width) == (source.height, source.width)
    length = density(op.weight) * op.weight.shape[1]
    return same and op.groups == 1 and output.pixels <= 64 and length >= 4 and reaches_only_inside(window, source)


def suits_depthwise(op: ir.Conv, source: ir.Shape, output: ir.Shape) -> bool:
    """One channel each, output exactly 1 or 1/2 of the input, planes whose masks stay in the second-level cache."""
    window, stride = op.window, op.window.strides[0]
    exact = window.strides in ((1, 1), (2, 2)) and (source.height, source.width) == (
        stride * output.height,
        stride * output.width,
    )
    single = op.groups == source.channels == output.channels and op.weight[0, 0].size <= TAPS_MAX
    return exact and single and output.pixels <= 1024 and reaches_only_inside(window, output)
