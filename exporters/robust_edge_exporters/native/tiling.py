"""How a convolution walks its planes: tiles of output pixels, input rows packed or read in place, channel blocks.

A packed copy is the input plane moved by (dy, dx) and thinned by the stride, so that every kernel tap reads whole
units at one constant 16-bit offset. Small planes get one copy per tap (nothing is misaligned); larger ones one copy
per kernel column and stride phase, in which a kernel row is a shift by whole output rows.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from robust_edge_exporters.native import ir
from robust_edge_runtimes.core.errors import ExportError

UNIT = 16  # floats; the C side's UNIT
TILE_FLOATS = 256  # output pixels of a tile: 16 AVX-512 accumulators
SPARE_ROWS = 1  # behind each plane, and before the first, where rows are one or two units
COLUMNS_FLOATS = 128  # of the kernel that sums by kernel column: two sums of 8 AVX-512 accumulators
SHARED_FLOATS = 64  # output pixels of a tile of several images
SMALL_PLANE = 100  # pixels up to which each tap has its own copy
TAPS_MAX = 49  # of a depthwise kernel, and what reaches into a plane of one unit; the C side's too
TAP_UNITS = 4  # units of a tile of the kernel that sums by tap
GUARD = 2048  # floats before and after the tensors: moved copies read across a plane's ends, then mask
OFFSETS = 65536  # what 16 bits address
STRIP_UNITS = (16, 6, 3, 2)  # the C side's UNITS_MAX of each instruction set
SPLIT_FLOATS = 16384  # phases of a block that the kernel that sums by tap splits at a time


def whole_units(floats: int) -> int:
    """`floats` rounded up to units."""
    return -(-floats // UNIT) * UNIT


@dataclass(frozen=True)
class Tiling:
    """Numbers of one convolution's loops; the C struct conv holds the same.

    Attributes:
        tap_offsets: of each tap in a list; floats, or units in the kernel that sums by kernel column.
        channel_offset: from one channel to the next, likewise.
        lead: in place, floats before a tile's first pixel that offsets count from.
        spare: reads the spare rows of its input.
        apart: pixels between two rows that share a packed unit; 0: units are runs of pixels.
    """

    rows: int
    extra_rows: int
    images: int
    block: int
    shifts: tuple[tuple[int, int], ...]
    copy_floats: int
    whole: bool
    masked: bool
    tap_offsets: tuple[int, ...]
    channel_offset: int
    scratch_floats: int
    lead: int = 0
    spare: bool = False
    apart: int = 0


def tile_convolution(
    op: ir.Conv, source: ir.Shape, output: ir.Shape, pitch: int, *, images: int, block_floats: int, in_place: bool
) -> Tiling:
    """Tiling of `op` for input planes `pitch` floats apart.

    Args:
        op: the convolution.
        source: its input shape.
        output: its output shape.
        pitch: floats between input planes.
        images: most images in a pass.
        block_floats: packed floats of a block, about what the first-level cache holds.
        in_place: read a 1x1 convolution's input where it lies.

    Raises:
        ExportError: the plane is too wide for 16-bit offsets.
    """
    rows = tile_rows(output)
    whole = rows == output.height
    many = max(1, min(images, SHARED_FLOATS // output.pixels)) if whole and output.pixels % UNIT == 0 else 1
    per_group = source.channels // op.groups
    if in_place:
        block = max(1, min(per_group, block_floats // (rows * output.width), OFFSETS // pitch))
        return Tiling(rows, 0, 1, block, (), 0, False, False, (0,), pitch, 0)
    same = op.window.strides == (1, 1) and output.width == source.width
    each_tap = whole and (many > 1 or output.pixels <= SMALL_PLANE)
    many = many if each_tap else 1
    shifts, moved = copies(op.window, each_tap=each_tap)
    near = reaches_only_inside(op.window, source) and all(abs(dx) <= GUARD - UNIT for _, dx in shifts)
    extra = max(row for _, row in moved)
    floats = whole_units((rows + extra) * output.width)
    offsets = tuple(copy * floats + row * output.width for copy, row in moved)
    channel = len(shifts) * floats
    if max(offsets) >= OFFSETS:
        raise ExportError(
            f"Conv with weight '{op.name}': rows of {output.width} pixels are too wide for the sparse engine"
        )
    block = max(1, min(per_group, block_floats // channel, OFFSETS // channel))
    return Tiling(
        rows, extra, many, block, shifts, floats,
        whole=each_tap, masked=same and near and (not each_tap or output.height == source.height),
        tap_offsets=offsets, channel_offset=channel, scratch_floats=many * block * channel,
    )  # fmt: skip


def tile_columns(op: ir.Conv, source: ir.Shape, output: ir.Shape, pitch: int, *, block_floats: int) -> Tiling:
    """Tiling of the kernel that sums by kernel column; it counts offsets in units.

    Rows of whole units are read in place where the kernel reaches no further than a plane's spare rows, half a block at
    a time: what is read first comes from the second-level cache. Else one copy for each kernel row's phase, at stride 2
    for even and odd pixels each. Rows of half a unit share units in pairs half a plane apart: a kernel row moves by
    whole units then, too. Blocks are of nearly equal size.
    """
    rows, width, window = tile_rows(output, COLUMNS_FLOATS), output.width, op.window
    stride, top = window.strides[0], window.pads[0]
    moves = [divmod(y * window.dilations[0], stride) for y in range(window.kernel[0])]
    extra, paired = max(down for down, _ in moves), width < UNIT
    row = UNIT if paired else width
    floats = ((rows // 2 if paired else rows) + extra) * row
    if stride == 1 and not paired and top <= SPARE_ROWS and output.height + extra - top <= source.height + SPARE_ROWS:
        block = even_block(op.weight.shape[1], min(block_floats // 2 // floats, OFFSETS // (pitch // UNIT)))
        return Tiling(
            rows, extra, 1, block, (), 0,
            whole=False, masked=False, tap_offsets=tuple(down * row // UNIT for down, _ in moves),
            channel_offset=pitch // UNIT, scratch_floats=0, lead=top * width,
            spare=top > 0 or output.height + extra - top > source.height,
        )  # fmt: skip
    tops = [phase - top for _, phase in moves]
    copies = sorted({(top, x) for top in tops for x in range(stride)})
    channel = len(copies) * floats
    block = even_block(op.weight.shape[1], min(block_floats, OFFSETS * UNIT) // channel)
    offsets = (
        (copies.index((top, x)) * floats + down * row) // UNIT
        for top, (down, _) in zip(tops, moves, strict=True)
        for x in range(stride)
    )
    return Tiling(
        rows, extra, 1, block, tuple(copies), floats,
        whole=False, masked=False, tap_offsets=tuple(offsets),
        channel_offset=channel // UNIT, scratch_floats=block * channel, apart=output.pixels // 2 if paired else 0,
    )  # fmt: skip


def even_block(channels: int, most: int) -> int:
    """Channels of a block, so that blocks of at most `most` are of nearly equal size."""
    return math.ceil(channels / math.ceil(channels / max(1, min(channels, most))))


def column_lists(window: ir.Window) -> int:
    """Lists of an output channel in the kernel that sums by kernel column: at stride 2 unmoved columns share one."""
    return 3 if window.strides == (1, 1) else 2


def strip_units(tiling: Tiling, height: int, width: int, *, most: int, step: int) -> set[int]:
    """Sizes of the strips, in units, that tiles of any number of images and the last rows are cut into.

    Args:
        tiling: of a kernel that keeps a strip's sums in registers.
        height: output rows.
        width: output columns.
        most: units of a strip, one of `STRIP_UNITS`.
        step: units that are not cut.
    """
    heights = {tiling.rows, height % tiling.rows or tiling.rows}
    units = set()
    for rows, images in itertools.product(heights, range(1, tiling.images + 1)):
        steps = whole_units(images * rows * width) // UNIT // step
        strips = math.ceil(steps / (most // step))
        units |= {step * (steps // strips), step * math.ceil(steps / strips)}
    return units


def tile_taps(op: ir.Conv, output: ir.Shape, pitch: int) -> Tiling:
    """Tiling of the kernel that sums by tap in place: masks by tap, lists over all channels of a block."""
    shifts = tap_shifts(op.window)
    floats, split = whole_units(output.pixels), op.window.strides == (2, 2)
    channel = 4 * floats if split else pitch
    assert output.pixels > UNIT or len(shifts) <= TAPS_MAX
    block = min(op.weight.shape[1], (SPLIT_FLOATS if split else OFFSETS) // channel)
    return Tiling(
        output.height, 0, 1, block, shifts, floats,
        whole=True, masked=len(shifts) > 1,
        tap_offsets=tuple(split * floats * (dy % 2 * 2 + dx % 2) for dy, dx in shifts),
        channel_offset=channel, scratch_floats=(len(shifts) + 2) * TAP_UNITS * UNIT + split * block * channel,
    )  # fmt: skip


def tile_depthwise(op: ir.Conv, output: ir.Shape, pitch: int) -> Tiling:
    """Tiling of the depthwise kernel: a list's offsets are tap numbers; scratch holds the phases of a plane."""
    shifts = tap_shifts(op.window)
    floats = whole_units(output.pixels)
    return Tiling(
        output.height, 0, 1, 1, shifts, floats,
        whole=True, masked=True, tap_offsets=tuple(range(len(shifts))), channel_offset=pitch,
        scratch_floats=6 * floats + 2 * UNIT,
    )  # fmt: skip


def tap_shifts(window: ir.Window) -> tuple[tuple[int, int], ...]:
    """(dy, dx) of each tap, from an output pixel times the stride."""
    (height, width), (down, right) = window.kernel, window.dilations
    return tuple((y * down - window.pads[0], x * right - window.pads[1]) for y in range(height) for x in range(width))


def reaches_only_inside(window: ir.Window, shape: ir.Shape) -> bool:
    """Whether every tap, moved from a pixel, still meets the plane somewhere: then shifts are short."""
    return all(abs(dy) < shape.height and abs(dx) < shape.width for dy, dx in tap_shifts(window))


def tile_rows(output: ir.Shape, floats: int = TILE_FLOATS) -> int:
    """Output rows of a tile: about `floats` pixels, in whole units unless a row is too long for that."""
    if output.pixels <= floats:
        return output.height
    step = UNIT // math.gcd(UNIT, output.width)
    if step * output.width > 4 * floats:
        return 1
    most = max(step, floats // output.width // step * step)
    tiles = math.ceil(output.height / most)
    even = math.ceil(output.height / tiles / step) * step
    return min(output.height, even)


def copies(window: ir.Window, *, each_tap: bool) -> tuple[tuple[tuple[int, int], ...], list[tuple[int, int]]]:
    """Packed copies (dy, dx), and for each tap its copy and the rows it is moved by within it."""
    found: dict[tuple[int, int], int] = {}
    moved = []
    for ky in range(window.kernel[0]):
        for kx in range(window.kernel[1]):
            down, phase = divmod(ky * window.dilations[0], window.strides[0])
            if each_tap:
                down, phase = 0, ky * window.dilations[0]
            shift = (phase - window.pads[0], kx * window.dilations[1] - window.pads[1])
            moved.append((found.setdefault(shift, len(found)), down))
    return tuple(found), moved
