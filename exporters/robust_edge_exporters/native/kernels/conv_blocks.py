"""Kernel `blocks`: convolutions of codes of any geometry. Blocks of four weights that are all zero are not stored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.geometry import UNIT, Shape, Window, tile_rows, whole_units
from robust_edge_exporters.native.int8.ops import WORD, QuantConv
from robust_edge_exporters.native.kernel import Family, Kernel, Layer, Options
from robust_edge_exporters.native.kernels.channel_records import channel_records, layer_fields, layer_weights
from robust_edge_exporters.native.kernels.convolution import GUARD_FLOATS, LENGTH_MULTIPLE, conv_fields
from robust_edge_exporters.native.kernels.packed import SHARED_FLOATS, SMALL_PLANE, copies
from robust_edge_exporters.native.program import Program
from robust_edge_exporters.native.tiling import WIDE_UNITS, Tiling
from robust_edge_exporters.native.weights import OFFSETS, Packer, Sections, nonzero, pack_segments
from robust_edge_runtimes.core.errors import ExportError

# Time of a product of four that loads its pixels, in that of one that shares them with three others; of one tap, whose
# vectors of pixels follow each other, and of several.
LOADING_ONE, LOADING = 1.5, 2.0
SHORT = 64  # pixels of a tile, up to which segments are padded
LONG = 12  # blocks of a segment on average, from which on padding takes few bytes
TILES = (WIDE_UNITS * UNIT, 256, 128, 64, 32)  # pixels


@dataclass(frozen=True)
class WordsTiling(Tiling):
    """The loop sizes of a convolution of codes, in words.

    Attributes:
        offset_unit: words that an offset counts, which divides all offsets.
        in_place: whether the input is read in place, where codes are multiplied as they are.
        short: whether a tile has so few units that the end of a segment takes as much time as several blocks.
    """

    offset_unit: int = 1
    in_place: bool = False
    short: bool = False


class WordsKernel(Kernel[QuantConv, Tiling]):
    """A convolution of codes, whose C function has a struct conv_words as its argument."""

    operator: ClassVar[type[ir.Weighted]] = QuantConv
    family: ClassVar[Family | None] = None
    segment: ClassVar[int]  # output channels whose blocks are stored together
    header: ClassVar[str]  # of the C function

    def suits(self, op: QuantConv, source: Shape, output: Shape, options: Options) -> bool:
        """All convolutions of codes."""
        return True

    def cost(self, op: QuantConv, output: Shape) -> float:
        """Products of four, as a fraction of those of the dense layer."""
        return float(nonzero(self.stored_words(op)).mean())

    def stored_words(self, op: QuantConv) -> np.ndarray[Any, Any]:
        """(segments, positions, outputs) words of the consecutive output channels that are stored together."""
        words = weight_words(op)
        stored: np.ndarray[Any, Any] = words.reshape(len(words) // self.segment, self.segment, -1).transpose(0, 2, 1)
        return stored

    def tile(self, op: QuantConv, source: Shape, output: Shape, options: Options) -> Tiling:
        """Tiles of packed rows of all input channels of a group, since sums are not kept between blocks of channels.

        The largest tile whose packed input has `options.block_bytes`, or the one that has the least.

        Raises:
            ExportError: the rows of all channels are too long for 16-bit offsets.
        """
        inputs = source.channels // word_groups(op)
        choices = [
            tile_words(op, source, output, options, tile_rows(output, floats), each_tap=each_tap)
            for floats in TILES[op.window == Window((1, 1)) :]  # sums of few products wait for their requantisation
            for each_tap in (True, False)
        ]
        fitting = [t for t in choices if (inputs - 1) * t.channel_offset + max(t.tap_offsets) < OFFSETS]
        if not fitting:
            raise ExportError(
                f"Conv with weight '{op.name}': {WORD * inputs} channels of rows of {output.width} pixels are too many "
                "for the sparse engine in 8 bits"
            )
        small = [tiling for tiling in fitting if 4 * tiling.scratch_floats <= options.block_bytes]
        return small[0] if small else min(fitting, key=lambda tiling: tiling.scratch_floats)

    def pack(self, packer: Packer, op: QuantConv, tiling: Tiling) -> Sections:
        """Segments in the order of output channels; within a segment by word, then tap."""
        return self.pack_words(packer, op, tiling, self.stored_words(op))

    def pack_words(self, packer: Packer, op: QuantConv, tiling: Tiling, words: np.ndarray[Any, Any]) -> Sections:
        """Append (segments, positions, ...) words; long segments of short tiles are padded to multiples of four."""
        assert isinstance(tiling, WordsTiling)
        pads = self.segment == 1 and tiling.short and nonzero(words).sum() >= LONG * len(words)
        outputs = -(-len(op.weight) // WORD) * WORD
        return pack_segments(
            packer, channel_records(op.requantisation, outputs), [words],
            blocks_per_group=1, channel_offset=tiling.channel_offset, tap_offsets=tiling.tap_offsets,
            multiple=LENGTH_MULTIPLE if pads else 1,
        )  # fmt: skip

    def function(self, program: Program, layer: Layer, tiling: Tiling) -> str:
        """Name of the C function; adds the tile sizes that it needs to the program."""
        return f"conv_{self.name}"

    def emit(self, program: Program, name: str, layer: Layer, sections: Sections) -> None:
        """One call with a struct conv_words."""
        op, tiling = layer.op, layer.tiling
        assert isinstance(op, QuantConv)
        assert isinstance(tiling, WordsTiling)
        fields = conv_fields(program, name, layer, op, tiling, word_groups(op), ".conv")
        fields = {f"conv.{key}": value for key, value in (fields | layer_weights(program, name, sections)).items()}
        fields |= {"fill": f"{op.padding * 0x01010101}u", "offset_unit": tiling.offset_unit}
        if tiling.in_place:  # an offset is the index of a plane
            fields["conv.copies"] = "READS_IN_PLACE ? 0 : 1"
            fields["offset_unit"] = f"READS_IN_PLACE ? {layer.inputs[0].pitch} : {tiling.offset_unit}"
        fields |= layer_fields(program, name, op, sections, together=self.segment, starts=fields["conv.starts"])
        struct, fields = self.struct(program, name, op, tiling, fields)
        function = self.function(program, layer, tiling)
        program.operator(name, [ir.Call(function, struct, fields, self.header)])

    def struct(
        self, program: Program, name: str, op: QuantConv, tiling: Tiling, fields: dict[str, object]
    ) -> tuple[str, dict[str, object]]:
        """The name of the kernel's C struct, and its fields, from those of a struct conv_words."""
        return "conv_words", fields


class ConvBlocks(WordsKernel):
    """Blocks are stored in one segment per output channel."""

    name = "blocks"
    segment = 1
    header = "conv_blocks"

    def cost(self, op: QuantConv, output: Shape) -> float:
        """Products of four, each of which loads its pixels."""
        return (LOADING_ONE if op.window.kernel == (1, 1) else LOADING) * super().cost(op, output)

    def function(self, program: Program, layer: Layer, tiling: Tiling) -> str:
        """The C function, which is compiled for each size of register tile."""
        program.register_tiles("BLOCKS", tiling, layer.output, codes=True)
        return super().function(program, layer, tiling)


def word_groups(op: QuantConv) -> int:
    """Groups of words: those of the convolution if they have whole words, a word each if it is depthwise, else one."""
    outputs, inputs = op.weight.shape[0] // op.groups, op.weight.shape[1]
    if outputs == inputs == 1:
        return -(-op.groups // WORD)
    return op.groups if outputs % WORD == inputs % WORD == 0 else 1


def tile_words(
    op: QuantConv, source: Shape, output: Shape, options: Options, rows: int, *, each_tap: bool
) -> WordsTiling:
    """Tiles of `rows` output rows, with packed input of all words of a group.

    Args:
        op: the convolution.
        source, output: in words.
        options: of the export.
        rows: of a tile, unless its words would not be whole units.
        each_tap: whether small planes have a copy for each tap.
    """
    if rows < output.height and rows * output.width % UNIT:
        rows = tile_rows(output)
    whole, inputs = rows == output.height, source.channels // word_groups(op)
    many = max(1, min(options.images, SHARED_FLOATS // output.pixels)) if whole and output.pixels % UNIT == 0 else 1
    each_tap = each_tap and whole and (many > 1 or output.pixels <= SMALL_PLANE)
    many = many if each_tap else 1
    same = op.window.strides == (1, 1) and output.width == source.width
    shifts, moves = copies(op.window, each_tap=each_tap)
    near = op.window.reaches_only_inside(source) and all(abs(dx) <= GUARD_FLOATS - UNIT for _, dx in shifts)
    extra = max(down for _, down in moves)
    floats = whole_units((rows + extra) * output.width)
    channel = len(shifts) * floats
    offsets = [copy * floats + down * output.width for copy, down in moves]
    unit = math.gcd(channel, *offsets)
    return WordsTiling(
        rows, extra, many, inputs, shifts, floats,
        whole_plane=each_tap, masked=same and near and (not each_tap or output.height == source.height),
        tap_offsets=tuple(offset // unit for offset in offsets), channel_offset=channel // unit,
        scratch_floats=many * inputs * channel, offset_unit=unit,
        in_place=op.window == Window((1, 1)) and many == 1, short=rows * output.width <= SHORT,
    )  # fmt: skip


def weight_words(op: QuantConv) -> np.ndarray[Any, Any]:
    """(outputs, words of a group, kh, kw) weights of four input channels as an int32; outputs are whole words."""
    outputs, inputs, groups = op.weight.shape[0], op.weight.shape[1], word_groups(op)
    channels = -(-inputs * op.groups // WORD) * WORD // groups  # of a group of words
    padded = np.zeros((-(-outputs // WORD) * WORD, channels, *op.weight.shape[2:]), np.int8)
    for group, rows in enumerate(np.split(np.arange(outputs), op.groups)):
        first = group * inputs % channels
        padded[rows, first : first + inputs] = op.weight[rows]
    last = padded.reshape(len(padded), -1, WORD, *op.weight.shape[2:]).transpose(0, 1, 3, 4, 2)
    words: np.ndarray[Any, Any] = np.ascontiguousarray(last).view(np.int32)[..., 0]
    return words


KERNEL = ConvBlocks()
