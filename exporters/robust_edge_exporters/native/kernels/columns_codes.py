"""Kernel `columns` of codes: a segment for each filter column, between which sums are shifted by a pixel."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from robust_edge_exporters.native.c_source import c_constant
from robust_edge_exporters.native.geometry import UNIT, Shape, Window, whole_units
from robust_edge_exporters.native.int8.ops import QuantConv
from robust_edge_exporters.native.kernel import Layer, Options
from robust_edge_exporters.native.kernels.conv_blocks import LOADING, ConvBlocks, weight_words
from robust_edge_exporters.native.kernels.conv_rows import ConvRows, RowsTiling
from robust_edge_exporters.native.program import Program
from robust_edge_exporters.native.tiling import Tiling
from robust_edge_exporters.native.weights import OFFSETS, Packer, Sections

FULL = 0.8  # of a copied row, that are pixels of the output
ROW_UNITS = c_constant("conv_tiles.h", "ROW_UNITS")
HALF = UNIT // 2
COST, SHIFTS = 0.7, 2  # time, in that of kernel `blocks`, and the blocks of an output channel that shifts take


class ColumnsCodes(ConvRows):
    """Blocks are stored in a segment for each output channel and filter column, from the last to the first."""

    name = "columns"

    def suits(self, op: QuantConv, source: Shape, output: Shape, options: Options) -> bool:
        """Filters at stride 1 or 2; output rows that nearly fill whole units, or half a unit of small planes."""
        pitch, window = self._pitch(op.window, source, output), op.window
        full = output.width >= FULL * pitch and pitch <= ROW_UNITS * UNIT and window.strides in ((1, 1), (2, 2))
        plain, rows = window.dilations[1] == 1 < window.kernel[1], output.height if pitch < UNIT else 1
        return full and plain and self._words(op, source, output, rows)[1] <= OFFSETS

    def cost(self, op: QuantConv, output: Shape) -> float:
        """The products of four are faster than those of kernel `blocks`, but sums are shifted."""
        positions: int = math.prod(weight_words(op).shape[1:])
        return COST * ConvBlocks.cost(self, op, output) + LOADING * SHIFTS / positions

    def tile(self, op: QuantConv, source: Shape, output: Shape, options: Options) -> RowsTiling:
        """Tiles as those of kernel `rows`; register tiles are whole rows, or a plane whose rows are half a unit."""
        tiling = super().tile(op, source, output, options)
        floats = tiling.pitch if tiling.pitch >= UNIT else self._plane_words(op.window, output)
        columns = -(-op.window.kernel[1] // op.window.strides[1])
        return replace(tiling, columns=columns, step=whole_units(floats) // UNIT)

    def pack(self, packer: Packer, op: QuantConv, tiling: Tiling) -> Sections:
        """Segments in the order of output channels, then from the last column to the first; within by word and row."""
        words, stride = weight_words(op), op.window.strides[1]
        words = np.pad(words, [(0, 0)] * 3 + [(0, -words.shape[3] % stride)])
        columns = words.reshape(*words.shape[:3], -1, stride).transpose(0, 3, 1, 2, 4)[:, ::-1]
        segments = columns.reshape(len(words) * columns.shape[1], -1)
        return self.pack_words(packer, op, tiling, segments)

    def function(self, program: Program, layer: Layer, tiling: Tiling) -> str:
        """The C function; adds the sizes of its register tiles, which are whole rows, to the program."""
        assert isinstance(tiling, RowsTiling)
        self._register_tiles(program, "COLUMNS_CODES", layer, tiling, ROW_UNITS)
        return "conv_columns_codes"

    def _cache_words(self, op: QuantConv, pitch: int, options: Options) -> float:
        """Without a limit where a tile is a whole plane."""
        return super()._cache_words(op, pitch, options) if pitch >= UNIT else math.inf

    def _plane_words(self, window: Window, output: Shape) -> int:
        """Words of all rows of half a unit of an output plane, with the pixels that sums are shifted by."""
        return (output.height - 1) * HALF + output.width + self._shifts(window)

    def _shifts(self, window: Window) -> int:
        return (window.kernel[1] - 1) // window.strides[1]

    def _pitch(self, window: Window, source: Shape, output: Shape) -> int:
        """Whole units, with the pixels that sums are shifted by; half a unit, where the plane fits a register tile."""
        width = output.width + self._shifts(window)
        shared = super()._pitch(window, source, output) if window.strides == (1, 1) else width
        small = shared <= HALF and self._plane_words(window, output) <= ROW_UNITS * UNIT
        return HALF if small else whole_units(width)

    def _offsets(self, window: Window, pitch: int, copy: int) -> list[int]:
        """Of each row of the filter columns of a segment, in words."""
        stride = window.strides[0]
        rows = [divmod(row * window.dilations[0], stride) for row in range(window.kernel[0])]
        return [(odd * stride + column) * copy + row * pitch for row, odd in rows for column in range(stride)]


KERNEL = ColumnsCodes()
