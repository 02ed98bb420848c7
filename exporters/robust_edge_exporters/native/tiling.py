"""How a convolution loops over its planes: tiles of output pixels, rows packed or read in place, channel blocks."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from robust_edge_exporters.native.c_source import c_constants
from robust_edge_exporters.native.geometry import UNIT, whole_units

REGISTER_TILE_UNITS = c_constants("vector.h", "UNITS_MAX")  # of each instruction set


@dataclass(frozen=True)
class Tiling:
    """Numbers of one convolution's loops; the C struct conv holds the same.

    Attributes:
        rows: output rows of a tile.
        extra_rows: rows that a packed copy holds beyond them.
        images: of a tile.
        block: input channels of a group that are read at a time.
        shifts: (dy, dx) of each packed copy, or of each tap where the kernel packs nothing.
        copy_floats: from one copy to the next.
        whole_plane: a copy is a whole shifted plane, so masks cover rows too.
        masked: copies are contiguous parts of the plane, whose pixels from outside the rows are masked.
        tap_offsets: of each tap; in floats, or in units in the kernel `columns`.
        channel_offset: from one channel to the next, likewise.
        scratch_floats: of each thread's scratch memory.
        padding_floats: in place, floats of padding above a tile's first row, where offsets count from.
        reads_padding_rows: of its input, in place.
        pair_distance: pixels between the two rows that share a packed unit; 0: units are consecutive pixels.
    """

    rows: int
    extra_rows: int
    images: int
    block: int
    shifts: tuple[tuple[int, int], ...]
    copy_floats: int
    whole_plane: bool
    masked: bool
    tap_offsets: tuple[int, ...]
    channel_offset: int
    scratch_floats: int
    padding_floats: int = 0
    reads_padding_rows: bool = False
    pair_distance: int = 0


def register_tile_units(tiling: Tiling, height: int, width: int, *, most: int, step: int) -> set[int]:
    """Sizes in units of the register tiles that tiles of any number of images and the last rows are split into.

    Args:
        tiling: of a kernel of csrc/conv_tiles.h, whose run_register_tiles splits alike.
        height: output rows.
        width: output columns.
        most: units of a register tile, one of `REGISTER_TILE_UNITS`.
        step: units that are not split.
    """
    heights = {tiling.rows, height % tiling.rows or tiling.rows}
    units = set()
    for rows, images in itertools.product(heights, range(1, tiling.images + 1)):
        steps = whole_units(images * rows * width) // UNIT // step
        tiles = math.ceil(steps / (most // step))
        units |= {step * (steps // tiles), step * math.ceil(steps / tiles)}
    return units
