"""Kernel `quads`: convolutions of codes whose output channels have blocks at the same places, by fours."""

from __future__ import annotations

from robust_edge_exporters.native.int8.ops import WORD
from robust_edge_exporters.native.kernels.conv_blocks import WordsKernel


class ConvQuads(WordsKernel):
    """Blocks of four output channels are stored together, in one segment: unpruned and depthwise layers."""

    name = "quads"
    segment = WORD
    header = "conv_quads"


KERNEL = ConvQuads()
