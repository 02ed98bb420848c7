"""Kernel `sparse`: convolutions of any geometry with only nonzeros stored and packed input rows."""

from __future__ import annotations

from robust_edge_exporters.native.geometry import Shape
from robust_edge_exporters.native.kernel import Layer, Options
from robust_edge_exporters.native.kernels.convolution import SparseConvKernel
from robust_edge_exporters.native.kernels.packed import tile_packed
from robust_edge_exporters.native.operators.conv import Conv
from robust_edge_exporters.native.program import Program
from robust_edge_exporters.native.tiling import Tiling


class ConvSparse(SparseConvKernel):
    """Nonzeros are stored in one segment per output channel and block of input channels."""

    name = "sparse"

    def suits(self, op: Conv, source: Shape, output: Shape, options: Options) -> bool:
        """All convolutions."""
        return True

    def tile(self, op: Conv, source: Shape, output: Shape, options: Options) -> Tiling:
        """Tiles of packed rows; a 1x1 convolution may read its input in place."""
        return tile_packed(op, source, output, options)

    def function(self, program: Program, layer: Layer, tiling: Tiling) -> str:
        """The C function, which is compiled for each size of register tile."""
        program.register_tiles("SPARSE", tiling, layer.output)
        return "conv_sparse"


KERNEL = ConvSparse()
