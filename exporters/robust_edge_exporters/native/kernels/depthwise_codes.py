"""Kernel `depthwise` of codes: depthwise convolutions, with products of four rows of a filter column."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.c_source import c_constant
from robust_edge_exporters.native.geometry import Shape, whole_units
from robust_edge_exporters.native.int8.ops import WORD, QuantConv
from robust_edge_exporters.native.kernel import Family, Kernel, Layer, Options
from robust_edge_exporters.native.kernels.channel_records import channel_records, layer_fields
from robust_edge_exporters.native.program import Program
from robust_edge_exporters.native.tiling import Tiling
from robust_edge_exporters.native.weights import Packer, Sections

TAPS = c_constant("conv_depthwise_codes.h", "DEPTHWISE_TAPS")
SLACK = c_constant("copy_rows.h", "COPY_SLACK")
BAND_BYTES = 24 * 1024  # of copied rows and results, which stay in the first-level cache
COST = 0.3  # time of a layer, in those of a dense layer of kernel `quads`


@dataclass(frozen=True)
class BandTiling(Tiling):
    """The loop sizes of a band.

    Attributes:
        pitch: words from one copied row to the next.
    """

    pitch: int = 0


class DepthwiseCodes(Kernel[QuantConv, BandTiling]):
    """All weights are stored, by fours of rows, with zeros for the rows that a filter does not have."""

    name = "depthwise"
    operator: ClassVar[type[ir.Weighted]] = QuantConv
    family: ClassVar[Family | None] = None

    def suits(self, op: QuantConv, source: Shape, output: Shape, options: Options) -> bool:
        """Depthwise convolutions of small filters at stride 1 or 2, to which no residual is added."""
        single = len(op.weight) == op.groups and op.weight.shape[1] == 1 and op.residual is None
        window = op.window
        small = max(window.kernel) <= TAPS and window.dilations == (1, 1) and window.strides in ((1, 1), (2, 2))
        return single and small

    def cost(self, op: QuantConv, output: Shape) -> float:
        """The same for all weights."""
        return COST

    def tile(self, op: QuantConv, source: Shape, output: Shape, options: Options) -> BandTiling:
        """Bands of as many rows as `BAND_BYTES` hold, at least one."""
        kernel, stride = op.window.kernel, op.window.strides[0]
        pitch, extra = output.width + (kernel[1] - 1) // stride, (kernel[0] - 1) // stride

        def floats(rows: int) -> tuple[int, int]:
            """Words of the copied rows of one parity, and of all scratch memory."""
            copy = whole_units((rows + extra) * pitch) + SLACK
            return copy, stride * stride * copy + whole_units(rows * pitch)

        fitting = [rows for rows in range(2, output.height + 1) if 4 * floats(rows)[1] <= BAND_BYTES]
        bands = -(-output.height // max(fitting, default=1))
        rows = -(-output.height // bands)
        copy, scratch = floats(rows)
        return BandTiling(
            rows, extra, 1, 1, (), copy, whole_plane=False, masked=False, tap_offsets=(0,), channel_offset=0,
            scratch_floats=scratch, pitch=pitch,
        )  # fmt: skip

    def pack(self, packer: Packer, op: QuantConv, tiling: BandTiling) -> Sections:
        """(words, fours of rows, filter columns, channels of a word, rows of a four) weights."""
        (channels, _, height, width), words = op.weight.shape, -(-len(op.weight) // WORD)
        padded = np.zeros((words * WORD, -(-height // WORD) * WORD, width), np.int8)
        padded[:channels, :height] = op.weight[:, 0]
        fours = padded.reshape(words, WORD, -1, WORD, width).transpose(0, 2, 4, 1, 3)
        records = channel_records(op.requantisation, words * WORD)
        return Sections(packer.values(fours), packer.append(records), None)

    def emit(self, program: Program, name: str, layer: Layer, sections: Sections) -> None:
        """One call with a struct conv_depthwise_codes, of the function for the size of the filter."""
        op, tiling = layer.op, layer.tiling
        assert isinstance(op, QuantConv)
        assert isinstance(tiling, BandTiling)
        (height, width), stride = op.window.kernel, op.window.strides[0]
        program.instances.add(f"DEPTHWISE_CODES({height}, {width}, {stride})")
        fields: dict[str, Any] = {
            "in": layer.inputs[0],
            "out": layer.output,
            "copy.top": op.window.pads[0],
            "copy.left": op.window.pads[1],
            "copy.reach": height,
            "copy.pitch": tiling.pitch,
            "copy.floats": tiling.copy_floats,
            "rows": tiling.rows,
            "fill": f"{op.padding * 0x01010101}u",
            "values": sections.values,
        }
        fields |= layer_fields(program, name, op, sections, together=WORD, blocks=-(-height // WORD) * width)
        function, struct = f"conv_depthwise_codes_{height}x{width}_{stride}", "conv_depthwise_codes"
        program.operator(name, [ir.Call(function, struct, fields, struct)])


KERNEL = DepthwiseCodes()
