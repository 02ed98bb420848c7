"""The cost model: which kernel and which layout a layer gets."""

from __future__ import annotations

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.tiling import TAPS_MAX, TILE_FLOATS, UNIT, reaches_only_inside

# Time of one weight over a tile of `u` units, in units of one multiply-add of a unit from the first-level cache:
# a non-zero also loads its value and offset; a dense weight shares its loaded pixels with five others, but short
# tiles wait for the sum before. Fitted to per-layer times of ResNet34 and MobileNetV2 on AVX-512, at tiles of 16 units
# in every kernel.
SPARSE_FIXED, SPARSE_UNIT = 0.8, 1.0
DENSE_FIXED, DENSE_UNIT, DENSE_LEAST = 0.2, 0.83, 2.4
UNPRUNED = 0.95  # density of a layer that nobody pruned; a few zeros are not worth lists
COLUMNS_OF_8 = (16, 32, 48, 64)  # pixels of a plane with rows of half a unit
DENSE_CHANNELS = 6  # output channels of the dense register tile; the C side's too


def density(weight: ir.Array) -> float:
    """Fraction of weights that are not zero."""
    return float(np.count_nonzero(weight)) / weight.size


def convolution_is_sparse(op: ir.Conv, output: ir.Shape) -> bool:
    """Sparse where non-zeros cost less than all weights; always where a group can't fill half a dense tile.

    Unpruned layers are dense: lists would cost memory, and time where tiles hold several images.
    """
    if op.weight.shape[0] // op.groups < DENSE_CHANNELS // 2:
        return True
    if density(op.weight) > UNPRUNED:
        return False
    units = min(output.pixels, TILE_FLOATS) / UNIT
    sparse = density(op.weight) * (SPARSE_FIXED + SPARSE_UNIT * units)
    dense = max(DENSE_LEAST, DENSE_FIXED + DENSE_UNIT * units)
    return sparse < dense


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
    """Convolutions whose output fits four units, if the lists by tap are not too short."""
    window = op.window
    length = density(op.weight) * op.weight.shape[1]
    return (
        has_exact_phases(window, source, output)
        and op.groups == 1
        and output.pixels <= 64
        and length >= 4
        and reaches_only_inside(window, output)
    )


def suits_columns(op: ir.Conv, source: ir.Shape, output: ir.Shape) -> bool:
    """Three columns of taps, rows of one or two units, or planes of whole units in rows of half a unit."""
    window, stride = op.window, op.window.strides[0]
    moves_by_one = window.kernel[1] == 3 and window.dilations[1] == 1 and window.pads[1] == 1
    rows = output.width in (UNIT, 2 * UNIT) or (output.width == UNIT // 2 and output.pixels in COLUMNS_OF_8)
    exact = window.strides in ((1, 1), (2, 2)) and source.width == stride * output.width
    return moves_by_one and rows and exact


def suits_depthwise(op: ir.Conv, source: ir.Shape, output: ir.Shape) -> bool:
    """One channel each, output exactly 1 or 1/2 of the input, planes whose masks stay in the second-level cache."""
    window = op.window
    exact = has_exact_phases(window, source, output)
    single = op.groups == source.channels == output.channels and op.weight[0, 0].size <= TAPS_MAX
    return exact and single and output.pixels <= 1024 and reaches_only_inside(window, output)


def has_exact_phases(window: ir.Window, source: ir.Shape, output: ir.Shape) -> bool:
    """Stride 1 or 2, and an output of exactly the input's size over the stride."""
    stride = window.strides[0]
    exact = (source.height, source.width) == (stride * output.height, stride * output.width)
    return window.strides in ((1, 1), (2, 2)) and exact
