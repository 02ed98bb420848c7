"""Kernels of matrix products of codes: `codes` stores all weights, in rows of bytes padded to whole units of words."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.geometry import Shape, whole_units
from robust_edge_exporters.native.int8.ops import WORD, QuantLinear
from robust_edge_exporters.native.kernel import Family, Kernel, Layer, Options
from robust_edge_exporters.native.kernels.channel_records import channel_records, layer_fields, layer_weights
from robust_edge_exporters.native.program import Program
from robust_edge_exporters.native.weights import Packer, Sections

LOGIT = np.dtype([("bias", "<i4"), ("scale", "<f4")])
"""The C struct logit."""


class LinearCodesKernel(Kernel[QuantLinear, None]):
    """A matrix product of codes, whose C function has a struct linear_codes as its argument."""

    operator: ClassVar[type[ir.Weighted]] = QuantLinear
    family: ClassVar[Family | None] = None
    function: ClassVar[str]  # of C, and its header

    def tile(self, op: QuantLinear, source: Shape, output: Shape, options: Options) -> None:
        """None: matrix products are not tiled."""

    def emit(self, program: Program, name: str, layer: Layer, sections: Sections) -> None:
        """One call with a struct linear_codes."""
        op, (source,), output = layer.op, layer.inputs, layer.output
        assert isinstance(op, QuantLinear)
        fields: dict[str, object] = {
            "in": source.offset,
            "out": output.offset,
            "in_image": source.image,
            "out_image": output.image,
            "inputs": input_words(op),
            "outputs": len(op.weight),
        }
        fields |= layer_weights(program, name, sections)
        fields["logits"] = int(op.requantisation is None)
        blocks, starts = whole_units(input_words(op)), fields.get("starts", 0)
        fields |= layer_fields(program, name, op, sections, together=1, starts=starts, blocks=blocks)
        program.operator(name, [ir.Call(self.function, "linear_codes", fields, self.function)])


class LinearCodes(LinearCodesKernel):
    """All weights are stored."""

    name = "codes"
    function = "linear_codes"

    def suits(self, op: QuantLinear, source: Shape, output: Shape, options: Options) -> bool:
        """All matrix products of codes."""
        return True

    def cost(self, op: QuantLinear, output: Shape) -> float:
        """Estimated time per row, all weights."""
        return 1.0

    def pack(self, packer: Packer, op: QuantLinear, tiling: None) -> Sections:
        """Rows of words."""
        words = weight_words(op)
        padded = np.zeros((len(words), whole_units(words.shape[1])), np.int32)
        padded[:, : words.shape[1]] = words
        return Sections(packer.values(padded), packer.append(output_records(op)), None)


def input_words(op: QuantLinear) -> int:
    """Words of the features."""
    return sum(-(-channels // WORD) * pixels for channels, pixels in op.parts)


def weight_words(op: QuantLinear) -> np.ndarray[Any, Any]:
    """(outputs, words) weights of four features as an int32, in the order in which the features lie."""
    sizes = [channels * pixels for channels, pixels in op.parts]
    columns = np.split(op.weight, np.cumsum(sizes)[:-1], axis=1)
    rows = np.concatenate([by_word(part, *size) for part, size in zip(columns, op.parts, strict=True)], axis=1)
    words: np.ndarray[Any, Any] = np.ascontiguousarray(rows).view(np.int32)
    return words


def output_records(op: QuantLinear) -> np.ndarray[Any, Any]:
    """(outputs,) structs record or wide_record, or those of logits."""
    if op.requantisation is not None:
        return channel_records(op.requantisation, len(op.weight))
    records = np.zeros(len(op.weight), LOGIT)
    records["bias"], records["scale"] = op.bias, op.scales
    return records


def by_word(weight: np.ndarray[Any, Any], channels: int, pixels: int) -> np.ndarray[Any, Any]:
    """(M, channels * pixels) weights in the order by word of channels, pixel and channel of the word."""
    planes = np.zeros((len(weight), -(-channels // WORD) * WORD, pixels), np.int8)
    planes[:, :channels] = weight.reshape(-1, channels, pixels)
    words: np.ndarray[Any, Any] = planes.reshape(len(weight), -1, WORD, pixels).transpose(0, 1, 3, 2)
    return words.reshape(len(weight), -1)


KERNEL = LinearCodes()
