"""Kernel `rows`: convolutions of codes at stride 1 that read one copy of their input rows, at unaligned offsets."""

from __future__ import annotations

import math
from dataclasses import dataclass

from robust_edge_exporters.native.geometry import UNIT, Shape, Window, whole_units
from robust_edge_exporters.native.int8.ops import WORD, QuantConv
from robust_edge_exporters.native.kernel import Layer, Options
from robust_edge_exporters.native.kernels.conv_blocks import SHORT, ConvBlocks, WordsTiling, word_groups
from robust_edge_exporters.native.kernels.packed import SMALL_PLANE
from robust_edge_exporters.native.program import Program
from robust_edge_exporters.native.tiling import REGISTER_TILE_UNITS, WIDE_UNITS, Tiling, codes_units
from robust_edge_exporters.native.weights import OFFSETS

NARROW = 4  # pixels of a row, up to which the padding between rows would cost too much
COST = 0.9  # time, in that of kernel `blocks`
CACHE_SHARE = 0.7  # of Options.block_bytes, for the copied rows of a tile; weights need the rest


@dataclass(frozen=True)
class RowsTiling(WordsTiling):
    """The loop sizes of kernel `rows`.

    Attributes:
        pitch: words from one copied row to the next.
        columns: segments of an output channel.
        step: register tiles are multiples of so many units.
    """

    pitch: int = 0
    columns: int = 1
    step: int = 1


class ConvRows(ConvBlocks):
    """Blocks are stored as in kernel `blocks`."""

    name = "rows"
    header = "conv_rows"

    def suits(self, op: QuantConv, source: Shape, output: Shape, options: Options) -> bool:
        """Filters of several taps at stride 1 over small planes, of which kernel `blocks` makes a copy for each tap."""
        small = output.width > NARROW and output.pixels <= SMALL_PLANE and output.pixels % UNIT != 0
        return small and self._fits(op, source, output)

    def _fits(self, op: QuantConv, source: Shape, output: Shape) -> bool:
        """Whether the stride is 1, and copies of one row leave room for 16-bit offsets."""
        window = op.window
        return window.strides == (1, 1) != window.kernel and self._words(op, source, output, 1)[1] <= OFFSETS

    def cost(self, op: QuantConv, output: Shape) -> float:
        """Less than that of kernel `blocks`."""
        return COST * super().cost(op, output)

    def tile(self, op: QuantConv, source: Shape, output: Shape, options: Options) -> RowsTiling:
        """Tiles of as many rows as the caches hold; as many as fill registers, at most."""
        window, pitch = op.window, self._pitch(op.window, source, output)
        fitting = [
            rows
            for rows in range(1, output.height + 1)
            if self._words(op, source, output, rows)[1] <= min(OFFSETS, self._cache_words(op, pitch, options))
            and rows * pitch <= WIDE_UNITS * UNIT
        ]
        tiles = -(-output.height // max(fitting, default=1))
        rows = -(-output.height // tiles)
        copy, words = self._words(op, source, output, rows)
        plane, offsets = math.prod(window.strides) * copy, self._offsets(window, pitch, copy)
        unit = math.gcd(plane, *offsets)
        return RowsTiling(
            rows, 0, 1, source.channels // word_groups(op), (), copy, whole_plane=False, masked=False,
            tap_offsets=tuple(offset // unit for offset in offsets), channel_offset=plane // unit,
            scratch_floats=words, offset_unit=unit, short=rows * pitch <= SHORT, pitch=pitch,
        )  # fmt: skip

    def _cache_words(self, op: QuantConv, pitch: int, options: Options) -> float:
        """Words of the copied rows of a tile, at most: each copy of a parity has what the first-level cache holds."""
        return math.prod(op.window.strides) * CACHE_SHARE * options.block_bytes / WORD

    def _offsets(self, window: Window, pitch: int, copy: int) -> list[int]:
        """Of each tap, in words."""
        rows, columns = ([k * window.dilations[axis] for k in range(window.kernel[axis])] for axis in (0, 1))
        return [row * pitch + column for row in rows for column in columns]

    def _pitch(self, window: Window, source: Shape, output: Shape) -> int:
        """Words of a copied row; the padding behind a row is that before the next one."""
        left, reach = window.pads[1], window.dilations[1] * (window.kernel[1] - 1)
        return output.width + reach - max(0, min(left, output.width + reach - left - source.width))

    def _words(self, op: QuantConv, source: Shape, output: Shape, rows: int) -> tuple[int, int]:
        """Words of a copy of a plane, and of the copies of all planes of a group.

        What vectors write or read beyond a copy belongs to the next one, which is written later, and to no pixel. At
        stride 2 there is a copy for each parity of row and column, and what they write lies behind each.
        """
        stride, reach = op.window.strides[0], op.window.dilations[0] * (op.window.kernel[0] - 1)
        copy = whole_units((rows + -(-reach // stride)) * self._pitch(op.window, source, output) + op.window.pads[1])
        copy += UNIT * (stride > 1)
        return copy, source.channels // word_groups(op) * stride * stride * copy

    def function(self, program: Program, layer: Layer, tiling: Tiling) -> str:
        """The C function; its register tiles are compiled with those of kernel `blocks`."""
        assert isinstance(tiling, RowsTiling)
        self._register_tiles(program, "BLOCKS", layer, tiling)
        return "conv_rows"

    def _register_tiles(self, program: Program, kernel: str, layer: Layer, tiling: RowsTiling, least: int = 1) -> None:
        """Add the sizes of register tiles, as rows_tile in csrc/conv_rows.h splits tiles.

        Args:
            program, kernel, layer, tiling: to what, and of what.
            least: units that a register tile may have, even where registers hold less.
        """
        height, width, step = layer.output.height, layer.output.width, tiling.step
        sizes = program.tile_units.setdefault(kernel, {most: set() for most in REGISTER_TILE_UNITS})
        for rows in {tiling.rows, height % tiling.rows or tiling.rows}:
            steps = -(-((rows - 1) * tiling.pitch + width) // (step * UNIT))
            for most, found in sizes.items():
                tiles = -(-steps // (max(codes_units(most), least) // step))
                found |= {step * (steps // tiles), step * -(-steps // tiles)}

    def struct(
        self, program: Program, name: str, op: QuantConv, tiling: Tiling, fields: dict[str, object]
    ) -> tuple[str, dict[str, object]]:
        """A struct conv_rows."""
        assert isinstance(tiling, RowsTiling)
        copy = {
            "copy.top": op.window.pads[0],
            "copy.left": op.window.pads[1],
            "copy.reach": op.window.dilations[0] * (op.window.kernel[0] - 1) + 1,
            "copy.pitch": tiling.pitch,
            "copy.floats": tiling.copy_floats,
            "plane_floats": tiling.channel_offset * tiling.offset_unit,
            "columns": tiling.columns,
            "step": tiling.step,
        }
        return "conv_rows", {f"words.{field}": value for field, value in fields.items()} | copy


KERNEL = ConvRows()
