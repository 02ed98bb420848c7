"""Every size of register tile that the C splits a tile into is one that the exporter compiles."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from robust_edge_exporters.native import Options
from robust_edge_exporters.native.geometry import UNIT, Shape, Window
from robust_edge_exporters.native.kernels import conv_columns, conv_sparse, conv_strips
from robust_edge_exporters.native.kernels.conv_strips import PART_PIXELS, PART_ROWS
from robust_edge_exporters.native.operators.conv import Conv
from robust_edge_exporters.native.tiling import REGISTER_TILE_UNITS, register_tile_units


def split(floats, step, most):
    """run_register_tiles of conv_tiles.h, line by line."""
    steps = (floats + UNIT - 1) // UNIT // step
    tiles = (steps + most // step - 1) // (most // step)
    return {((i + 1) * steps // tiles - i * steps // tiles) * step for i in range(tiles)}


def convolution(height, width, *, kernel=3, channels=4):
    weight = np.zeros((4, channels, kernel, kernel), np.float32)
    window = Window((kernel, kernel), (1, 1), (kernel // 2,) * 4, (1, 1))
    return Conv("w", ("x",), "y", weight=weight, bias=np.zeros(4, np.float32), window=window, groups=1)


def check(tiling, shape, step):
    for most in REGISTER_TILE_UNITS:
        wanted = set()
        for first in range(0, shape.height, tiling.rows):
            rows = min(tiling.rows, shape.height - first)
            for images in range(1, tiling.images + 1):
                wanted |= split(images * rows * shape.width, step, most)
        assert register_tile_units(tiling, shape.height, shape.width, most=most, step=step) == wanted
        assert wanted <= set(range(1, most + 1))


@pytest.mark.parametrize("width", [1, 2, 4, 7, 8, 13, 16, 20, 32, 56, 112, 224])
def test_tiles_of_the_sparse_kernel(width):
    for height in (1, 2, 3, 4, 7, 8, 16, 19, 32, 100):
        shape = Shape(4, height, width)
        for images in (1, 4, 8):
            options = Options(images=images, block_bytes=4 * 12288)
            tiling = conv_sparse.KERNEL.tile(convolution(height, width), shape, shape, options)
            check(tiling, shape, 1)


@pytest.mark.parametrize(("width", "heights"), [(8, (2, 4, 6, 8)), (16, range(1, 50)), (32, range(1, 50))])
def test_tiles_of_the_columns_kernel(width, heights):
    for height in heights:
        shape = Shape(4, height, width)
        tiling = conv_columns.KERNEL.tile(convolution(height, width), shape, shape, Options(block_bytes=4 * 12288))
        check(tiling, shape, max(1, width // UNIT))


@pytest.mark.parametrize("width", [12, 14, 28, 56, 112, 150, 224])
def test_strips_cover_a_row(width):
    """With room for the columns of the filter, in units that the registers hold, most of them pixels."""
    for extra in (0, 1, 2, 6):
        for columns, floats in conv_strips.strips(width, extra):
            assert columns + extra <= floats <= conv_strips.ROW_UNITS_MAX * UNIT
            assert floats % UNIT == 0


def register_tiles(rows, most):
    """strip_tile_rows of conv_strips.h, where each size is compiled: the rows of each register tile."""
    left, found = rows, []
    while left:
        found.append(left // -(-left // most))
        left -= found[-1]
    return found


@pytest.mark.parametrize("width", [12, 14, 28, 56, 112, 224])
def test_tiles_of_the_strips_kernel(width):
    """The loops of conv_strips.h: threads share rows; these are split into bands, and bands into register tiles."""
    for height, most in itertools.product((1, 5, 7, 14, 56), REGISTER_TILE_UNITS):
        shape = Shape(4, height, width)
        tiling = conv_strips.KERNEL.tile(convolution(height, width), shape, shape, Options(block_bytes=4 * 12288))
        units = tiling.row_units
        wanted = {units}
        for threads in (1, 2, 3, 4):
            shared = threads > 1 and height >= PART_ROWS * threads and height * width >= PART_PIXELS * threads
            parts = np.diff([height * i // threads for i in range(threads + 1)]) if shared else [height]
            for part in map(int, parts):
                bands = -(-part // tiling.rows)
                for band in np.diff([part * i // bands for i in range(bands + 1)]):
                    wanted |= {rows * units for rows in register_tiles(int(band), max(1, most // units))}
        assert conv_strips.strip_units(tiling, shape, most) == wanted
        assert wanted <= set(range(1, max(most, units) + 1))


@pytest.mark.parametrize(("height", "width"), [(7, 7), (6, 6), (14, 7)])
def test_tiles_of_paired_rows(height, width):
    """A tile is a whole plane, two rows to a unit, in register tiles that are compiled."""
    shape = Shape(4, height, width)
    tiling = conv_strips.KERNEL.tile(convolution(height, width), shape, shape, Options())
    pairs = -(-height // 2)
    assert (tiling.paired, tiling.rows, tiling.row_units, tiling.columns) == (True, pairs, 1, width)
    for most in REGISTER_TILE_UNITS:
        assert {1, *register_tiles(pairs, most)} == conv_strips.strip_units(tiling, shape, most)


@pytest.mark.parametrize(
    ("kernel", "pads", "width", "pairs"),
    [((3, 3), (1, 1, 1, 1), 7, True), ((3, 3), (1, 0, 1, 2), 7, False), ((3, 5), (1, 2, 1, 2), 7, False)],
)
def test_rows_are_paired_where_zeros_lie_between_them(kernel, pads, width, pairs):
    window = Window(kernel, (1, 1), pads, (1, 1))
    shape = Shape(4, 7, width)
    assert conv_strips.suits_pairs(window, shape, shape) == pairs


def test_constants_are_read_from_the_headers():
    assert (UNIT, REGISTER_TILE_UNITS) == (16, (16, 6, 3, 2))
