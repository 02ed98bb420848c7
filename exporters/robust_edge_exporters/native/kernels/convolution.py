"""Base classes of the convolution kernels: the cost model, the C struct conv, and blocks of weights."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import ClassVar

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.c_source import c_constant
from robust_edge_exporters.native.geometry import TILE_FLOATS, UNIT, Shape, Window
from robust_edge_exporters.native.int8.ops import QuantConv
from robust_edge_exporters.native.kernel import Family, Kernel, Layer
from robust_edge_exporters.native.operators.conv import Conv
from robust_edge_exporters.native.program import NO_TENSOR, Program
from robust_edge_exporters.native.tiling import Tiling
from robust_edge_exporters.native.weights import Packer, Sections, pack_segments

DENSE_CHANNELS = c_constant("conv_tiles.h", "DENSE_CHANNELS")  # output channels of a dense register tile
TAPS_MAX = c_constant("conv.h", "TAPS_MAX")
GUARD_FLOATS = 2048  # before and after the tensors: shifted copies read across a plane's ends, then mask

# The time of one weight over a tile of u units, in units of one multiply-add of a unit from the first-level cache. A
# nonzero also loads its value and offset. A dense weight shares the pixels it loads with five others, but in short
# tiles it waits for the previous sum. Fitted to the times of the layers of ResNet34 and MobileNetV2 on AVX-512, at
# tiles of 16 units in every kernel.
SPARSE_FIXED, SPARSE_UNIT = 0.8, 1.0
DENSE_FIXED, DENSE_UNIT, DENSE_LEAST = 0.2, 0.83, 2.4
LENGTH_MULTIPLE = 4  # segments of small tiles are padded to it: entries behind the last four cost a mispredicted branch
UNPRUNED = 0.95  # density of a layer that was not pruned; a few zeros are not worth the memory of positions


class ConvKernel(Kernel[Conv, Tiling]):
    """A convolution kernel, whose C function has a struct conv as its argument, or one that begins with it."""

    operator: ClassVar[type[ir.Weighted]] = Conv

    def function(self, program: Program, layer: Layer, tiling: Tiling) -> str:
        """Name of the C function; adds the instances and tile sizes that it needs to the program."""
        return f"conv_{self.name}"

    def own_fields(self, tiling: Tiling) -> dict[str, object]:
        """The fields of the kernel's struct behind its struct conv; empty if its argument is a struct conv."""
        return {}

    def emit(self, program: Program, name: str, layer: Layer, sections: Sections) -> None:
        """One call."""
        assert layer.tiling is not None
        function = self.function(program, layer, layer.tiling)
        program.operator(name, [replace(self.table(program, name, layer, sections), function=function)])

    def table(self, program: Program, name: str, layer: Layer, sections: Sections) -> ir.Call:
        """The call of conv_NAME with a struct conv, or with the kernel's own struct, conv_NAME."""
        op, tiling = layer.op, layer.tiling
        assert isinstance(op, Conv)
        assert tiling is not None
        weights = program.weights(name, sections)
        fields = conv_fields(program, name, layer, op, tiling, op.groups) | weights | {"act": op.act}
        header = struct = f"conv_{self.name}"
        if own := self.own_fields(tiling):
            fields = {f"conv.{field}": value for field, value in fields.items()} | own
        else:
            struct = "conv"
        return ir.Call(header, struct, fields, header)


class SparseConvKernel(ConvKernel):
    """A convolution kernel that stores only nonzeros."""

    family: ClassVar[Family | None] = "sparse"

    def cost(self, op: Conv, output: Shape) -> float:
        """Estimated time: each nonzero costs its multiply-adds and two loads. Unpruned layers cost more than dense.

        The positions of unpruned layers would use memory, and time if tiles have several images.
        """
        if op.density > UNPRUNED and not has_narrow_groups(op):
            return math.inf
        return op.density * (SPARSE_FIXED + SPARSE_UNIT * tile_units(output))

    def pack(self, packer: Packer, op: Conv, tiling: Tiling) -> Sections:
        """Segments in the order group, block, output channel; within a segment by channel, then tap."""
        blocks, count = blocks_of(op, tiling)
        return pack_segments(
            packer, op.bias, [block.reshape(len(block), -1) for block in blocks],
            blocks_per_group=count, channel_offset=tiling.channel_offset, tap_offsets=tiling.tap_offsets,
        )  # fmt: skip


def dense_cost(op: Conv, output: Shape) -> float:
    """Estimated time: each weight costs its multiply-adds. Narrow groups cost more than with a sparse kernel."""
    if has_narrow_groups(op):
        return math.inf
    return max(DENSE_LEAST, DENSE_FIXED + DENSE_UNIT * tile_units(output))


def has_narrow_groups(op: Conv) -> bool:
    """Whether a group has fewer output channels than half a dense register tile."""
    return len(op.weight) // op.groups < DENSE_CHANNELS // 2


def tile_units(output: Shape) -> float:
    """Number of units of a tile."""
    return min(output.pixels, TILE_FLOATS) / UNIT


def blocks_of(op: Conv, tiling: Tiling) -> tuple[list[ir.Array], int]:
    """The weights of each group and block, and the number of blocks per group.

    The weights of a block are (output channels, channels of the block, height, width).
    """
    groups = op.weight.reshape(op.groups, -1, *op.weight.shape[1:])
    firsts = range(0, op.weight.shape[1], tiling.block)
    return [group[:, first : first + tiling.block] for group in groups for first in firsts], len(firsts)


def conv_fields(
    program: Program, name: str, layer: Layer, op: Conv | QuantConv, t: Tiling, groups: int, member: str = ""
) -> dict[str, object]:
    """The fields of a struct conv, without those of weights and activation.

    Args:
        program: gets the tables that fields refer to.
        name: of the struct.
        layer: with `op` and its tensors.
        op: a convolution of floats or of words.
        t: its tiling.
        groups: of channels, or of words.
        member: of the struct, that is the struct conv; empty if the struct itself is one.
    """
    pairs = (f"{{{dy}, {dx}}}" for dy, dx in t.shifts)
    shifts = program.table("struct shift", f"{name}_shifts", pairs) if t.shifts else "NULL"
    return {
        "in": layer.inputs[0],
        "out": layer.output,
        "residual": NO_TENSOR if op.residual is None else layer.inputs[-1].offset,
        "groups": groups,
        "stride_y": op.window.strides[0],
        "stride_x": op.window.strides[1],
        "block": t.block,
        "rows": t.rows,
        "extra_rows": t.extra_rows,
        "images": t.images,
        "taps": len(t.tap_offsets),
        "copies": len(t.shifts),
        "copy_floats": t.copy_floats,
        "whole_plane": int(t.whole_plane),
        "shifts": shifts,
        "masks": masks(program, name + member, layer, op.window, t),
    }


def masks(program: Program, name: str, layer: Layer, window: Window, t: Tiling) -> object:
    """Arena offset of the lane masks of the struct conv `name`, which layers of the same geometry share."""
    if not (t.masked and t.shifts):
        return NO_TENSOR
    sizes = [(tensor.height, tensor.width) for tensor in (layer.inputs[0], layer.output)]
    key = (t.shifts, window.strides, t.copy_floats, t.whole_plane, *sizes)
    code = f"make_masks(&{name}, (uint32_t *)(void *)({{}}));"
    return program.computed_at_start(key, len(t.shifts) * t.copy_floats + UNIT, code)
