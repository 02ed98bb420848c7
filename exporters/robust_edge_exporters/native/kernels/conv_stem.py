"""Kernel `stem`: convolutions of codes of one to three input channels, four codes of any taps to a word."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from robust_edge_exporters.native.c_source import c_constant
from robust_edge_exporters.native.geometry import UNIT, Shape, tile_rows, whole_units
from robust_edge_exporters.native.int8.ops import WORD, QuantConv
from robust_edge_exporters.native.kernel import Options
from robust_edge_exporters.native.kernels.conv_blocks import WordsTiling
from robust_edge_exporters.native.kernels.conv_quads import ConvQuads
from robust_edge_exporters.native.program import Program
from robust_edge_exporters.native.tiling import Tiling
from robust_edge_exporters.native.weights import nonzero

SLACK = c_constant("copy_rows.h", "COPY_SLACK")
JOINING = 0.06  # time of joining the words, in that of a dense layer of kernel `quads`


@dataclass(frozen=True)
class StemTiling(WordsTiling):
    """The loop sizes of kernel `stem`.

    Attributes:
        pitch: words from one copied row to the next.
        copied_floats: words of the copied rows of one parity of row and column.
    """

    pitch: int = 0
    copied_floats: int = 0


class ConvStem(ConvQuads):
    """Four output channels are stored together; a block is four consecutive weights of all channels and taps."""

    name = "stem"
    header = "conv_stem"

    def suits(self, op: QuantConv, source: Shape, output: Shape, options: Options) -> bool:
        """One to three input channels and several taps, at stride 1 or 2."""
        window = op.window
        plain = window.dilations == (1, 1) and window.strides in ((1, 1), (2, 2)) and window.kernel != (1, 1)
        return plain and op.groups == 1 and op.weight.shape[1] < WORD

    def cost(self, op: QuantConv, output: Shape) -> float:
        """Products of four, as a fraction of those of the dense layer of kernel `quads`."""
        words = self.stored_words(op)
        dense: int = len(words) * op.weight[0, 0].size
        return float(nonzero(words).sum()) / dense + JOINING

    def stored_words(self, op: QuantConv) -> np.ndarray[Any, Any]:
        """(words of outputs, positions, 4) words of four consecutive weights, by tap, then by input channel."""
        taps = op.weight.transpose(0, 2, 3, 1).reshape(len(op.weight), -1)
        padded = np.zeros([-(-size // WORD) * WORD for size in taps.shape], np.int8)
        padded[: len(taps), : taps.shape[1]] = taps
        words: np.ndarray[Any, Any] = padded.view(np.int32).reshape(len(padded) // WORD, WORD, -1).transpose(0, 2, 1)
        return words

    def tile(self, op: QuantConv, source: Shape, output: Shape, options: Options) -> StemTiling:
        """Tiles of as many rows as `options.block_bytes` hold, at least one; whole units unless rows are too long."""
        positions = -(-op.weight[0].size // WORD)
        rows = tile_rows(output, max(UNIT, options.block_bytes // 6 // (positions + 1)))
        kernel, stride = op.window.kernel, op.window.strides[0]
        pitch, floats = output.width + (kernel[1] - 1) // stride, whole_units(rows * output.width)
        copied = whole_units((rows + (kernel[0] - 1) // stride) * pitch) + SLACK
        return StemTiling(
            rows, 0, 1, 1, (), floats, whole_plane=False, masked=False, tap_offsets=tuple(range(positions)),
            channel_offset=positions, scratch_floats=positions * floats + stride * stride * copied, offset_unit=floats,
            pitch=pitch, copied_floats=copied,
        )  # fmt: skip

    def struct(
        self, program: Program, name: str, op: QuantConv, tiling: Tiling, fields: dict[str, object]
    ) -> tuple[str, dict[str, object]]:
        """A struct conv_stem."""
        assert isinstance(tiling, StemTiling)
        own = {
            "copy.top": op.window.pads[0],
            "copy.left": op.window.pads[1],
            "copy.reach": op.window.kernel[0],
            "copy.pitch": tiling.pitch,
            "copy.floats": tiling.copied_floats,
            "copied_floats": math.prod(op.window.strides) * tiling.copied_floats,
            "channels": op.weight.shape[1],
            "count": len(tiling.tap_offsets),
            "parts": program.table("struct part_of_word", f"{name}_parts", parts_of_words(op, tiling)),
        }
        return "conv_stem", {f"words.{field}": value for field, value in fields.items()} | {
            "words.conv.copies": 1
        } | own


def parts_of_words(op: QuantConv, tiling: StemTiling) -> Iterator[str]:
    """The structs part_of_word of each word: of the taps in it, and of others, whose codes have no weight."""
    channels, (height, width), stride = op.weight.shape[1], op.window.kernel, op.window.strides[0]
    for word in range(len(tiling.tap_offsets)):
        first = WORD * word // channels
        for tap in range(first, first + (WORD if channels == 1 else 2)):
            ky, kx = divmod(min(tap, height * width - 1), width)
            copy, shift = ky % stride * stride + kx % stride, channels * tap - WORD * word
            offset = copy * tiling.copied_floats + ky // stride * tiling.pitch + kx // stride
            yield f"{{{offset}, {8 * max(0, shift)}, {8 * max(0, -shift)}}}"


KERNEL = ConvStem()
