"""Kernel `dense`: convolutions of any geometry with all weights stored and packed input rows."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from robust_edge_exporters.native.geometry import Shape
from robust_edge_exporters.native.kernel import Family, Options
from robust_edge_exporters.native.kernels.convolution import DENSE_CHANNELS, ConvKernel, dense_cost
from robust_edge_exporters.native.kernels.packed import tile_packed
from robust_edge_exporters.native.operators.conv import Conv
from robust_edge_exporters.native.tiling import Tiling
from robust_edge_exporters.native.weights import Packer, Sections, Segments, coded


class ConvDense(ConvKernel):
    """All weights are stored, in the order in which register tiles read them."""

    name = "dense"
    family: ClassVar[Family | None] = "dense"

    def suits(self, op: Conv, source: Shape, output: Shape, options: Options) -> bool:
        """All convolutions."""
        return True

    def cost(self, op: Conv, output: Shape) -> float:
        """Estimated time with all weights."""
        return dense_cost(op, output)

    def tile(self, op: Conv, source: Shape, output: Shape, options: Options) -> Tiling:
        """Tiles of packed rows; a 1x1 convolution may read its input in place."""
        return tile_packed(op, source, output, options)

    def pack(self, packer: Packer, op: Conv, tiling: Tiling) -> Sections:
        """Values as [group][block][channels / 6][tap][6], padded with zero channels.

        A single segment has the positions of all taps of a block.
        """
        outputs, inputs = op.weight.shape[0] // op.groups, op.weight.shape[1]
        padded = -(-outputs // DENSE_CHANNELS) * DENSE_CHANNELS
        weight = np.zeros((op.groups, padded, inputs, op.weight[0, 0].size), np.float32)
        weight[:, :outputs] = op.weight.reshape(op.groups, outputs, inputs, -1)
        values = []
        for group in weight:
            for first in range(0, inputs, tiling.block):
                taps = min(tiling.block, inputs - first) * group.shape[2]
                block = group[:, first : first + tiling.block].reshape(-1, DENSE_CHANNELS, taps)
                values.append(block.transpose(0, 2, 1).ravel())
        positions = min(tiling.block, inputs) * len(tiling.tap_offsets)
        stream = coded(np.array([positions]), np.arange(positions))
        return Sections(
            packer.values(np.concatenate(values)),
            packer.append(op.bias),
            Segments(
                packer.append(stream), stream.size, positions, 1, 1, 1, positions, positions,
                tiling.channel_offset, tiling.tap_offsets,
            ),
        )  # fmt: skip


KERNEL = ConvDense()
