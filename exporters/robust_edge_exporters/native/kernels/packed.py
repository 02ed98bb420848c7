"""The tiling of the kernels `sparse` and `dense`, which pack the input rows of a tile and work for any geometry.

A packed copy is the input plane shifted by (dy, dx) and subsampled by the stride, so that every tap reads whole units
at one constant 16-bit offset. Small planes have one copy per tap, so that every read is aligned. Larger planes have
one copy for each filter column and stride phase, in which a filter row is a shift by whole output rows.
"""

from __future__ import annotations

from robust_edge_exporters.native.geometry import UNIT, Shape, Window, layout, tile_rows, whole_units
from robust_edge_exporters.native.kernel import Options
from robust_edge_exporters.native.kernels.convolution import GUARD_FLOATS
from robust_edge_exporters.native.operators.conv import Conv
from robust_edge_exporters.native.tiling import Tiling
from robust_edge_exporters.native.weights import OFFSETS
from robust_edge_runtimes.core.errors import ExportError

SHARED_FLOATS = 64  # output pixels of a tile of several images
SMALL_PLANE = 100  # pixels up to which each tap has its own copy


def tile_packed(op: Conv, source: Shape, output: Shape, options: Options) -> Tiling:
    """The tiling of a convolution with packed input.

    Raises:
        ExportError: the plane is too wide for 16-bit offsets.
    """
    rows, pitch, block_floats = tile_rows(output), layout(source).pitch, options.block_bytes // 4
    whole = rows == output.height
    many = max(1, min(options.images, SHARED_FLOATS // output.pixels)) if whole and output.pixels % UNIT == 0 else 1
    per_group = source.channels // op.groups
    if reads_in_place(op, output):
        block = max(1, min(per_group, block_floats // (rows * output.width), OFFSETS // pitch))
        return Tiling(rows, 0, 1, block, (), 0, False, False, (0,), pitch, 0)
    same = op.window.strides == (1, 1) and output.width == source.width
    each_tap = whole and (many > 1 or output.pixels <= SMALL_PLANE)
    many = many if each_tap else 1
    shifts, moves = copies(op.window, each_tap=each_tap)
    near = op.window.reaches_only_inside(source) and all(abs(dx) <= GUARD_FLOATS - UNIT for _, dx in shifts)
    extra = max(down for _, down in moves)
    floats = whole_units((rows + extra) * output.width)
    offsets = tuple(copy * floats + down * output.width for copy, down in moves)
    channel = len(shifts) * floats
    if max(offsets) >= OFFSETS:
        raise ExportError(
            f"Conv with weight '{op.name}': rows of {output.width} pixels are too wide for the sparse engine"
        )
    block = max(1, min(per_group, block_floats // channel, OFFSETS // channel))
    return Tiling(
        rows, extra, many, block, shifts, floats,
        whole_plane=each_tap, masked=same and near and (not each_tap or output.height == source.height),
        tap_offsets=offsets, channel_offset=channel, scratch_floats=many * block * channel,
    )  # fmt: skip


def reads_in_place(op: Conv, output: Shape) -> bool:
    """Whether a 1x1 convolution of large planes reads its input in place, since each pixel is used a few times only."""
    window = op.window
    plain = window.kernel == (1, 1) and window.strides == (1, 1) and window.pads == (0, 0, 0, 0)
    uses = op.density * op.weight.shape[0] / op.groups
    return plain and output.pixels > 128 and uses < 8


def copies(window: Window, *, each_tap: bool) -> tuple[tuple[tuple[int, int], ...], list[tuple[int, int]]]:
    """The shifts (dy, dx) of the packed copies, and for each tap the index of its copy and its shift in rows there."""
    found: dict[tuple[int, int], int] = {}
    moves = []
    for ky in range(window.kernel[0]):
        for kx in range(window.kernel[1]):
            down, phase = divmod(ky * window.dilations[0], window.strides[0])
            if each_tap:
                down, phase = 0, ky * window.dilations[0]
            shift = (phase - window.pads[0], kx * window.dilations[1] - window.pads[1])
            moves.append((found.setdefault(shift, len(found)), down))
    return tuple(found), moves
