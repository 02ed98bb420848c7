"""Kernel `blocks` of matrix products of codes: blocks of four weights that are all zero are not stored."""

from __future__ import annotations

from robust_edge_exporters.native.geometry import Shape
from robust_edge_exporters.native.int8.ops import QuantLinear
from robust_edge_exporters.native.kernel import Options
from robust_edge_exporters.native.kernels.linear_codes import (
    LinearCodesKernel,
    input_words,
    output_records,
    weight_words,
)
from robust_edge_exporters.native.weights import OFFSETS, Packer, Sections, pack_segments

INDEXED = 4.0  # time of an indexed product of four, in those of a row that is stored whole


class LinearBlocks(LinearCodesKernel):
    """Blocks are stored in one segment per output."""

    name = "blocks"
    function = "linear_blocks"

    def suits(self, op: QuantLinear, source: Shape, output: Shape, options: Options) -> bool:
        """Matrix products with at most as many words of features as 16-bit indices can address."""
        return input_words(op) <= OFFSETS

    def cost(self, op: QuantLinear, output: Shape) -> float:
        """Estimated time per row, blocks that are not all zero only."""
        return INDEXED * float((weight_words(op) != 0).mean())

    def pack(self, packer: Packer, op: QuantLinear, tiling: None) -> Sections:
        """Segments in the order of outputs."""
        return pack_segments(
            packer, output_records(op), [weight_words(op)], blocks_per_group=1, channel_offset=1, tap_offsets=(0,)
        )


KERNEL = LinearBlocks()
