"""The tiling of convolutions: tiles of output pixels, packed input rows or input read in place, channel blocks."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from robust_edge_exporters.native.c_source import c_constant, c_constants
from robust_edge_exporters.native.geometry import UNIT, whole_units

REGISTER_TILE_UNITS = c_constants("vector.h", "UNITS_MAX")  # of each instruction set
WIDE_UNITS = c_constant("conv_tiles.h", "WIDE_UNITS")


def codes_units(most: int) -> int:
    """Units of sums of codes in a register tile, where those of floats are `most`."""
    return WIDE_UNITS if most == max(REGISTER_TILE_UNITS) else most


@dataclass(frozen=True)
class Tiling:
    """The loop sizes of one convolution, as in the C struct conv. A kernel that needs others has a subclass.

    Attributes:
        rows: output rows per tile.
        extra_rows: number of rows of a packed copy beyond `rows`.
        images: images per tile.
        block: number of input channels of a group that are processed at a time.
        shifts: (dy, dx) of each packed copy, or of each tap if the kernel packs nothing.
        copy_floats: size of a packed copy.
        whole_plane: whether a copy is a whole shifted plane, so that masks also cover rows.
        masked: whether copies are contiguous parts of the plane, with masks for pixels of other rows.
        tap_offsets: offset of each tap, in floats; in kernel `columns` in units.
        channel_offset: distance from one channel to the next, in the same unit.
        scratch_floats: size of each thread's scratch memory.
        reads_padding_rows: whether the padding rows of the input are read in place.
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
    reads_padding_rows: bool = False


def register_tile_units(tiling: Tiling, height: int, width: int, *, most: int, step: int) -> set[int]:
    """The sizes in units of all register tiles of a layer, for any number of images and for the last rows.

    Args:
        tiling: the tiling; run_register_tiles in csrc/conv_tiles.h splits tiles in the same way.
        height: output rows.
        width: output columns.
        most: largest number of units of a register tile, one of `REGISTER_TILE_UNITS`.
        step: sizes are multiples of this number of units.
    """
    heights = {tiling.rows, height % tiling.rows or tiling.rows}
    units = set()
    for rows, images in itertools.product(heights, range(1, tiling.images + 1)):
        steps = whole_units(images * rows * width) // UNIT // step
        tiles = math.ceil(steps / max(1, most // step))
        units |= {step * (steps // tiles), step * math.ceil(steps / tiles)}
    return units
