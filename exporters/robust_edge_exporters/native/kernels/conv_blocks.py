"""Kernel `blocks`: convolutions of codes of any geometry. Blocks of four weights that are all zero are not stored."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.geometry import UNIT, Shape, tile_rows, whole_units
from robust_edge_exporters.native.int8.arithmetic import Requantisation
from robust_edge_exporters.native.int8.ops import WORD, QuantConv, requantisation_fields
from robust_edge_exporters.native.kernel import Family, Kernel, Layer, Options
from robust_edge_exporters.native.kernels.convolution import GUARD_FLOATS, conv_fields
from robust_edge_exporters.native.kernels.packed import SHARED_FLOATS, SMALL_PLANE, copies
from robust_edge_exporters.native.program import Program
from robust_edge_exporters.native.tiling import Tiling
from robust_edge_exporters.native.weights import OFFSETS, Packer, Sections, pack_segments
from robust_edge_runtimes.core.errors import ExportError

CHANNEL = np.dtype(
    [("bias", "<i4"), ("weights", "<i4"), ("multiplier", "<u2"), ("first", "u1"), ("down", "u1"), ("residual", "<i4")]
)
"""The C struct channel."""


class ConvBlocks(Kernel[QuantConv, Tiling]):
    """Blocks are stored in one segment per output channel."""

    name = "blocks"
    operator: ClassVar[type[ir.Weighted]] = QuantConv
    family: ClassVar[Family | None] = None

    def suits(self, op: QuantConv, source: Shape, output: Shape, options: Options) -> bool:
        """All convolutions of codes."""
        return True

    def cost(self, op: QuantConv, output: Shape) -> float:
        """Fraction of the blocks that are stored."""
        return 1.0

    def tile(self, op: QuantConv, source: Shape, output: Shape, options: Options) -> Tiling:
        """Tiles of packed rows of all input channels, since sums of codes are not kept between blocks of channels.

        Raises:
            ExportError: the rows of all channels are too long for 16-bit offsets.
        """
        for floats in (256, 64, 1):
            tiling = tile_words(op, source, output, options, tile_rows(output, floats))
            if (source.channels - 1) * tiling.channel_offset + max(tiling.tap_offsets) < OFFSETS:
                return tiling
        raise ExportError(
            f"Conv with weight '{op.name}': {WORD * source.channels} channels of rows of {output.width} pixels are too "
            "many for the sparse engine in 8 bits"
        )

    def pack(self, packer: Packer, op: QuantConv, tiling: Tiling) -> Sections:
        """Segments in the order of output channels, of whole words; within a segment by word, then tap."""
        words = weight_words(op)
        return pack_segments(
            packer, channel_records(op.requantisation, op.weight, len(words)), [words.reshape(len(words), -1)],
            blocks_per_group=1, channel_offset=tiling.channel_offset, tap_offsets=tiling.tap_offsets,
        )  # fmt: skip

    def emit(self, program: Program, name: str, layer: Layer, sections: Sections) -> None:
        """One call with a struct conv_blocks."""
        op, tiling = layer.op, layer.tiling
        assert isinstance(op, QuantConv)
        assert tiling is not None
        fields = conv_fields(program, name, layer, op, tiling, ".conv") | program.weights(name, sections)
        own = {"fill": f"{op.padding * 0x01010101}u"} | requantisation_fields(op.requantisation)
        program.register_tiles("BLOCKS", tiling, layer.output)
        call = ir.Call("conv_blocks", "conv_blocks", {f"conv.{key}": value for key, value in fields.items()} | own)
        program.operator(name, [call])


def tile_words(op: QuantConv, source: Shape, output: Shape, options: Options, rows: int) -> Tiling:
    """Tiles of `rows` output rows, with packed input of all channels."""
    if rows < output.height and rows * output.width % UNIT:
        rows = tile_rows(output)
    whole = rows == output.height
    many = max(1, min(options.images, SHARED_FLOATS // output.pixels)) if whole and output.pixels % UNIT == 0 else 1
    same = op.window.strides == (1, 1) and output.width == source.width
    each_tap = whole and (many > 1 or output.pixels <= SMALL_PLANE)
    many = many if each_tap else 1
    shifts, moves = copies(op.window, each_tap=each_tap)
    near = op.window.reaches_only_inside(source) and all(abs(dx) <= GUARD_FLOATS - UNIT for _, dx in shifts)
    extra = max(down for _, down in moves)
    floats = whole_units((rows + extra) * output.width)
    channel = len(shifts) * floats
    return Tiling(
        rows, extra, many, source.channels, shifts, floats,
        whole_plane=each_tap, masked=same and near and (not each_tap or output.height == source.height),
        tap_offsets=tuple(copy * floats + down * output.width for copy, down in moves), channel_offset=channel,
        scratch_floats=many * source.channels * channel,
    )  # fmt: skip


def weight_words(op: QuantConv) -> np.ndarray[Any, Any]:
    """(outputs, words, kh, kw) weights of four input channels as an int32, with channels rounded up to whole words."""
    outputs, inputs = op.weight.shape[0], op.weight.shape[1] * op.groups
    padded = np.zeros((-(-outputs // WORD) * WORD, -(-inputs // WORD) * WORD, *op.weight.shape[2:]), np.int8)
    for group, rows in enumerate(np.split(np.arange(outputs), op.groups)):
        columns = slice(group * op.weight.shape[1], (group + 1) * op.weight.shape[1])
        padded[rows, columns] = op.weight[rows]
    last = padded.reshape(len(padded), -1, WORD, *op.weight.shape[2:]).transpose(0, 1, 3, 4, 2)
    return np.ascontiguousarray(last).view(np.int32)[..., 0]


def channel_records(r: Requantisation, weight: np.ndarray[Any, Any], outputs: int) -> np.ndarray[Any, Any]:
    """(outputs,) structs channel; those beyond the channels of the layer have zeros, and the smallest shift."""
    records = np.zeros(outputs, CHANNEL)
    records["down"] = 1
    for name in ("bias", "multiplier", "first", "down", "residual"):
        records[name][: len(weight)] = getattr(r, name)
    records["weights"][: len(weight)] = weight.reshape(len(weight), -1).sum(axis=1, dtype=np.int64)
    return records


KERNEL = ConvBlocks()
