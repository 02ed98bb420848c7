"""Every size of strip that the C cuts a tile into is one that the exporter had compiled."""

from __future__ import annotations

import re

import numpy as np
import pytest

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.emit import source
from robust_edge_exporters.native.plan import layout
from robust_edge_exporters.native.tiling import STRIP_UNITS, UNIT, strip_units, tile_columns, tile_convolution


def cut(floats, step, most):
    """run_strips of conv.h, line by line."""
    steps = (floats + UNIT - 1) // UNIT // step
    strips = (steps + most // step - 1) // (most // step)
    return {((i + 1) * steps // strips - i * steps // strips) * step for i in range(strips)}


def convolution(height, width, *, kernel=3, channels=4):
    weight = np.zeros((4, channels, kernel, kernel), np.float32)
    window = ir.Window((kernel, kernel), (1, 1), (kernel // 2,) * 4, (1, 1))
    return ir.Conv("w", ("x",), "y", weight=weight, bias=np.zeros(4, np.float32), window=window, groups=1)


def check(tiling, shape, step):
    for most in STRIP_UNITS:
        wanted = set()
        for first in range(0, shape.height, tiling.rows):
            rows = min(tiling.rows, shape.height - first)
            for images in range(1, tiling.images + 1):
                wanted |= cut(images * rows * shape.width, step, most)
        assert strip_units(tiling, shape.height, shape.width, most=most, step=step) == wanted
        assert wanted <= set(range(1, most + 1))


@pytest.mark.parametrize("width", [1, 2, 4, 7, 8, 13, 16, 20, 32, 56, 112, 224])
def test_sparse_strips(width):
    for height in (1, 2, 3, 4, 7, 8, 16, 19, 32, 100):
        shape = ir.Shape(4, height, width)
        for images in (1, 4, 8):
            tiling = tile_convolution(
                convolution(height, width), shape, shape, 4096, images=images, block_floats=12288, in_place=False
            )
            check(tiling, shape, 1)


@pytest.mark.parametrize(("width", "heights"), [(8, (2, 4, 6, 8)), (16, range(1, 50)), (32, range(1, 50))])
def test_column_strips(width, heights):
    for height in heights:
        shape = ir.Shape(4, height, width)
        tiling = tile_columns(convolution(height, width), shape, shape, layout(shape).pitch, block_floats=12288)
        check(tiling, shape, max(1, width // UNIT))


def test_the_sizes_of_the_register_file_are_those_of_the_c():
    assert set(STRIP_UNITS) == {int(size) for size in re.findall(r"#define UNITS_MAX (\d+)", source("vector.h"))}
