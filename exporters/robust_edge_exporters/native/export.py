"""export_native: write C sources and a weights file for an ONNX file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.c_source import check_prefix, source, with_defines, with_prefix
from robust_edge_exporters.native.emit import emit_model
from robust_edge_exporters.native.geometry import Tensor
from robust_edge_exporters.native.importer import import_model, import_onnx, unsupported_nodes
from robust_edge_exporters.native.int8 import calibrate
from robust_edge_exporters.native.int8.calibrate import Ranges
from robust_edge_exporters.native.int8.ops import WORD, QuantConv
from robust_edge_exporters.native.int8.quantise import prepared, quantise, ranged_tensors, require_integers
from robust_edge_exporters.native.ir import Array
from robust_edge_exporters.native.kernel import Layer, Options
from robust_edge_exporters.native.kernels.conv_blocks import WordsKernel, weight_words
from robust_edge_exporters.native.passes import checked, optimise, rounded
from robust_edge_exporters.native.plan import Plan, make_plan
from robust_edge_exporters.native.weights import Packer, Sections, ValueType
from robust_edge_runtimes.core.errors import ExportError

VERBATIM = ("Makefile", "bench.c", "predict.c", "program.h")
VALUE_TYPES: dict[str, ValueType] = {"fp32": np.float32, "fp16": np.float16, "int8": np.int8}

ANY_RANGE = (0.0, 1.0)


@dataclass(frozen=True)
class LayerReport:
    """The manifest's row of a convolution or matrix product: its kernel, and its non-zero weights.

    Attributes:
        name: name of the weight in the ONNX file.
        operator: type of the operator.
        operator_index: index among the operators of the generated network, the same for layers that are joined.
        kernel: name of the kernel that computes it.
        macs: multiply-adds per image with non-zero weights.
        dense_macs: multiply-adds per image with all weights.
        in_blocks: weights in blocks of four input channels that are not all zero, of a convolution in 8 bits whose
            kernel reads blocks; 0 for others.
    """

    name: str
    operator: str
    operator_index: int
    kernel: str
    nonzeros: int
    weights: int
    macs: int
    dense_macs: int
    in_blocks: int


@dataclass(frozen=True)
class NativeExport:
    """The written files, with sizes in bytes, multiply-adds per image, and the memory of a context of one thread.

    `ranges` are those of the tensors of a network that computes with integers; empty for others.
    """

    directory: Path
    files: tuple[str, ...]
    input_shape: tuple[int, int, int]
    outputs: int
    layers: tuple[LayerReport, ...]
    weights: str
    weights_bytes: int
    memory_bytes: int
    ranges: Ranges

    @property
    def nonzeros(self) -> int:
        """Number of non-zero weights of all layers."""
        return sum(layer.nonzeros for layer in self.layers)

    @property
    def in_blocks(self) -> int:
        """Number of weights in blocks that are not all zero."""
        return sum(layer.in_blocks for layer in self.layers)

    @property
    def fill(self) -> float:
        """Share of the weights in these blocks that are not zero; 1 without blocks."""
        kept = sum(layer.nonzeros for layer in self.layers if layer.in_blocks)
        return kept / self.in_blocks if self.in_blocks else 1.0

    @property
    def macs(self) -> int:
        """Multiply-adds per image with non-zero weights."""
        return sum(layer.macs for layer in self.layers)


def export_native(
    onnx_path: Path,
    out_dir: Path,
    *,
    weights: Literal["fp32", "fp16", "int8"] = "fp32",
    options: Options | None = None,
    symbol_prefix: str = "re",
    calibration: Array | None = None,
    ranges: Ranges | None = None,
) -> NativeExport:
    """Write model.c, model.h, weights.bin, a Makefile and the programs bench and predict.

    Args:
        onnx_path: a classifier with one input (N, C, H, W) and one output (N, K).
        out_dir: created if missing; files of the same names are replaced.
        weights: type of the stored values, fp32 or fp16; fp16 values are converted to fp32 when they are used. With
            int8 the network computes with integers, as docs/int8-engine.md specifies.
        options: largest batch, cache size, and the family of kernels.
        symbol_prefix: what the names of functions and, in capitals, of macros begin with in place of `re`.
        calibration: int8: (N, C, H, W) images in [0, 1], whose extremes are the ranges of the tensors.
        ranges: int8: ranges with which the network was trained, by the name of the tensor; these are not calibrated.

    Raises:
        InputError: the prefix is no C identifier.
        ExportError: the network has an operator that the engine does not support, or a weight too large for fp16.
        ValueError: `weights` is none of these.
    """
    if weights not in VALUE_TYPES:
        raise ValueError(f"weights {weights!r}: choose {', '.join(VALUE_TYPES)}")
    check_prefix(symbol_prefix)
    value_type = VALUE_TYPES[weights]
    known = known_ranges(onnx_path, calibration, ranges or {}) if weights == "int8" else {}
    graph = network_of(import_onnx(onnx_path), weights, known)
    plan = make_plan(graph, options or Options())
    model = model_number(onnx_path, weights, plan.options, known)
    data, sections = pack(plan, value_type, model)
    code, memory = emit_model(
        plan, sections, model=model, size=len(data), value_bytes=np.dtype(value_type).itemsize, title=onnx_path.name
    )
    out_dir.mkdir(parents=True, exist_ok=True)
    texts = {"model.c": code, "model.h": header(plan)} | {name: source(name) for name in VERBATIM}
    for name, text in texts.items():
        (out_dir / name).write_text(with_prefix(text, symbol_prefix), encoding="utf-8")
    (out_dir / "weights.bin").write_bytes(data)
    return NativeExport(
        out_dir,
        (*texts, "weights.bin"),
        plan.image.dims,
        outputs(plan.output),
        tuple(
            report(plan.layers[index], number)
            for number, group in enumerate(plan.operators, 1)
            for index in group
            if index in sections
        ),
        weights,
        len(data),
        memory,
        known,
    )


def network_of(graph: ir.Graph, weights: str, ranges: Ranges) -> ir.Graph:
    """The graph as it is planned: simplified, checked, and rounded to the type of the weights or made of integers."""
    if weights == "int8":
        return quantise(checked(prepared(graph)), ranges).graph
    return rounded(checked(optimise(graph)), np.float16 if weights == "fp16" else np.float32)


def known_ranges(onnx_path: Path, calibration: Array | None, given: Ranges) -> Ranges:
    """The ranges of all tensors of a network: those that are given, and the others from calibration images.

    Raises:
        ExportError: an operator has no integers, or calibration images are missing.
    """
    graph = prepared(import_onnx(onnx_path))
    require_integers(graph)
    missing = [name for name in ranged_tensors(graph) if name not in given]
    if not missing:
        return given
    if calibration is None:
        raise ExportError("int8 reads its ranges from training images, and none were given")
    return {**calibrate.ranges(onnx.load(onnx_path), missing, calibration), **given}


def unsupported(model: onnx.ModelProto, name: str = "the network", *, int8: bool = False) -> list[ExportError]:
    """Everything that keeps the engine from running a network, node by node; empty if `export_native` can export it.

    Nothing is written. An error of a node is an `UnsupportedNode`, which names its operator. Of operators that have no
    integers only the first is found.

    Args:
        model: the network, with its weights.
        name: what errors call it.
        int8: whether to compute with integers.
    """
    found = unsupported_nodes(model, name)
    if not found:
        try:
            graph = import_model(model, name)
            ranges = dict.fromkeys(ranged_tensors(prepared(graph)), ANY_RANGE) if int8 else {}
            make_plan(network_of(graph, "int8" if int8 else "fp32", ranges), Options())
        except ExportError as error:
            found.append(error)
    return found


def model_number(onnx_path: Path, weights: str, options: Options, ranges: Ranges) -> int:
    """A 64-bit hash that the code and the weights file of one export have in common."""
    digest = hashlib.sha256(onnx_path.read_bytes())
    digest.update(f"{weights} {options}".encode())
    if ranges:
        digest.update(repr(sorted(ranges.items())).encode())
    return int.from_bytes(digest.digest()[:8], "little")


def outputs(tensor: Tensor) -> int:
    """Number of output values per image."""
    return tensor.channels * tensor.height * tensor.width


def header(plan: Plan) -> str:
    """Text of model.h."""
    sizes = {
        "RE_INPUT_CHANNELS": plan.image.channels,
        "RE_INPUT_HEIGHT": plan.image.height,
        "RE_INPUT_WIDTH": plan.image.width,
        "RE_OUTPUTS": outputs(plan.output),
    }
    return with_defines(source("model.h"), sizes)


def pack(plan: Plan, value_type: ValueType, model: int) -> tuple[bytes, dict[int, Sections]]:
    """The weights file of a plan, and the sections of each weighted layer, by the index of the layer."""
    packer, sections = Packer(value_type), {}
    for index, layer in enumerate(plan.layers):
        if layer.kernel is not None:
            sections[index] = layer.kernel.pack(packer, layer.op, layer.tiling)
    return packer.finish(model), sections


def report(layer: Layer, operator_index: int) -> LayerReport:
    """The manifest's row of a weighted layer."""
    op = layer.op
    assert isinstance(op, ir.Weighted)
    assert layer.kernel is not None
    kept, total = int(np.count_nonzero(op.weight)), op.size
    pixels = 1 if layer.output.flat else layer.output.height * layer.output.width
    in_blocks = 0
    if isinstance(op, QuantConv) and isinstance(layer.kernel, WordsKernel):
        in_blocks = WORD * int(np.count_nonzero(weight_words(op)))
    return LayerReport(
        op.name,
        type(op).__name__.replace("Quant", ""),
        operator_index,
        layer.kernel.name,
        kept,
        total,
        kept * pixels,
        total * pixels,
        in_blocks,
    )
