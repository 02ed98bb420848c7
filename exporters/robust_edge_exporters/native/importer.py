"""ONNX file to IR: one small function for each operator, shapes inferred on the way."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from robust_edge_exporters.native import ir
from robust_edge_runtimes.core.errors import ExportError

FLOAT_MAX = float(np.finfo(np.float32).max)


def _values(tensor: onnx.TensorProto) -> np.ndarray[Any, Any]:
    try:
        values: np.ndarray[Any, Any] = numpy_helper.to_array(tensor)
    except ValueError as cause:
        raise ExportError(
            f"the ONNX file does not hold the values of '{tensor.name}' ({cause}), as a bundle's graph.onnx does not; "
            "export the network itself"
        ) from cause
    return values


class Importer:
    """Turns nodes into operators in order; constants, shapes and operators grow with each node."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.constants: dict[str, np.ndarray[Any, Any]] = {
            tensor.name: _values(tensor) for tensor in model.graph.initializer
        }
        self.shapes: dict[str, ir.Shape] = {}
        self.ops: list[ir.Op] = []
        self.aliases: dict[str, str] = {}

    def constant(self, node: Any, index: int) -> np.ndarray[Any, Any] | None:
        """Value of input `index`, None when absent; an input computed at run time is an error."""
        if index >= len(node.input) or not node.input[index]:
            return None
        name = node.input[index]
        if name not in self.constants:
            raise unsupported(node, f"input {index} ({name}) must be a constant")
        return self.constants[name]

    def tensor(self, node: Any, index: int) -> str:
        """Name of input `index`, which must be computed at run time."""
        name = str(self.aliases.get(node.input[index], node.input[index]))
        if name not in self.shapes:
            raise unsupported(node, f"input {index} ({node.input[index]}) must not be a constant")
        return name

    def emit(self, op: ir.Op, shape: ir.Shape) -> None:
        """Appends `op`, whose output has `shape`."""
        self.ops.append(op)
        self.shapes[op.output] = shape

    def float32(self, value: np.ndarray[Any, Any]) -> ir.Array:
        """The same numbers, contiguous float32."""
        return np.ascontiguousarray(value, dtype=np.float32)


Handler = Callable[[Importer, Any], None]


def unsupported(node: Any, why: str) -> ExportError:
    """The error for a node that the engine does not run."""
    return ExportError(f"{node.op_type} at node '{node.name or node.output[0]}': {why}")


def attributes(node: Any) -> dict[str, Any]:
    """Attribute values by name, strings decoded."""
    values = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def window(node: Any, shape: ir.Shape, kernel: tuple[int, ...]) -> ir.Window:
    """Window of a Conv or pooling node over an input of `shape`."""
    at = attributes(node)
    if shape.flat or len(kernel) != 2:
        raise unsupported(node, f"only two-dimensional images, kernel is {tuple(kernel)}")
    strides = tuple(at.get("strides", (1, 1)))
    dilations = tuple(at.get("dilations", (1, 1)))
    pads = tuple(at.get("pads", (0, 0, 0, 0)))
    auto = at.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = same_pads(shape, kernel, strides, dilations, upper=auto == "SAME_UPPER")
    elif auto == "VALID":
        pads = (0, 0, 0, 0)
    if min(pads) < 0:
        raise unsupported(node, f"negative padding {pads}")
    return ir.Window((kernel[0], kernel[1]), strides, pads, dilations)


def same_pads(
    shape: ir.Shape, kernel: tuple[int, ...], strides: Any, dilations: Any, *, upper: bool
) -> tuple[int, int, int, int]:
    """Pads that keep ceil(size / stride) pixels; an odd one goes to the end if `upper`."""
    begin, end = [], []
    for size, k, stride, dilation in zip((shape.height, shape.width), kernel, strides, dilations, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + dilation * (k - 1) + 1 - size)
        small, large = total // 2, total - total // 2
        begin.append(small if upper else large)
        end.append(large if upper else small)
    return begin[0], begin[1], end[0], end[1]


def conv(at: Importer, node: Any) -> None:
    """Conv with constant weight."""
    source = at.tensor(node, 0)
    weight = at.constant(node, 1)
    assert weight is not None
    if weight.ndim != 4:
        raise unsupported(node, f"only two-dimensional convolution, weight is {weight.shape}")
    shape, groups = at.shapes[source], attributes(node).get("group", 1)
    bias = at.constant(node, 2)
    op = ir.Conv(
        node.input[1],
        (source,),
        node.output[0],
        weight=at.float32(weight),
        bias=at.float32(np.zeros(weight.shape[0]) if bias is None else bias),
        window=window(node, shape, weight.shape[2:]),
        groups=groups,
    )
    if weight.shape[1] * groups != shape.channels:
        raise unsupported(node, f"weight {weight.shape} with {groups} groups does not fit {shape.channels} channels")
    at.emit(op, positive(node, ir.Shape(weight.shape[0], *op.window.output(shape))))


def positive(node: Any, shape: ir.Shape) -> ir.Shape:
    """`shape`, unless the window does not fit into its input."""
    if min(shape.height, shape.width) < 1:
        raise unsupported(node, f"output would be {shape.height}x{shape.width}")
    return shape


def activation(make: Callable[[Importer, Any], ir.Activation]) -> Handler:
    """Handler of an element-wise function."""

    def handle(at: Importer, node: Any) -> None:
        source = at.tensor(node, 0)
        op = ir.Activate(node.name or node.output[0], (source,), node.output[0], make(at, node))
        at.emit(op, at.shapes[source])

    return handle


def clip(at: Importer, node: Any) -> ir.Activation:
    """Clip; a missing bound is the largest float."""
    old = attributes(node)
    lo, hi = at.constant(node, 1), at.constant(node, 2)
    low = lo.item() if lo is not None else old.get("min", -FLOAT_MAX)
    high = hi.item() if hi is not None else old.get("max", FLOAT_MAX)
    return ir.Activation(ir.Kind.CLAMP, *(min(max(bound, -FLOAT_MAX), FLOAT_MAX) for bound in (low, high)))


def leaky(at: Importer, node: Any) -> ir.Activation:
    """LeakyRelu."""
    return ir.Activation(ir.Kind.LEAKY_RELU, attributes(node).get("alpha", 0.01))


def binary(at: Importer, node: Any) -> None:
    """Add, Sub, Mul, Div: of two tensors, or of a tensor and constants that vary by channel at most."""
    constant = [index for index in (0, 1) if node.input[index] in at.constants]
    if constant:
        affine(at, node, constant[0])
        return
    first, second = at.tensor(node, 0), at.tensor(node, 1)
    if at.shapes[first].pixels < at.shapes[second].pixels:
        first, second = second, first
    a, b = at.shapes[first], at.shapes[second]
    if node.op_type not in ("Add", "Mul"):
        raise unsupported(node, "of two computed tensors; only Add and Mul are")
    if a.flat != b.flat or a.channels != b.channels or (a != b and b.pixels != 1):
        raise unsupported(node, f"shapes {a} and {b}: only equal ones, or one value per channel")
    kind = ir.Add if node.op_type == "Add" else ir.Mul
    at.emit(kind(node.name or node.output[0], (first, second), node.output[0]), a)


def affine(at: Importer, node: Any, which: int) -> None:
    """A binary operator with a constant operand, as scale and shift."""
    source = at.tensor(node, 1 - which)
    shape = at.shapes[source]
    value = per_channel(node, at.constants[node.input[which]], shape)
    one, zero = np.ones_like(value), np.zeros_like(value)
    forms = {
        "Add": (one, value),
        "Mul": (value, zero),
        "Sub": (one, -value) if which == 1 else (-one, value),
    }
    if node.op_type == "Div":
        if which == 0:
            raise unsupported(node, "a constant divided by a tensor")
        forms["Div"] = (1.0 / value, zero)
    scale, shift = forms[node.op_type]
    op = ir.Affine(
        node.name or node.output[0], (source,), node.output[0], scale=at.float32(scale), shift=at.float32(shift)
    )
    at.emit(op, shape)


def per_channel(node: Any, value: np.ndarray[Any, Any], shape: ir.Shape) -> np.ndarray[Any, Any]:
    """Constant operand as (C,) float64."""
    rank = 2 if shape.flat else 4
    full = value.reshape((1,) * max(0, rank - value.ndim) + value.shape).astype(np.float64)
    if full.ndim != rank or full.size not in (1, shape.channels) or full.shape[1] != full.size:
        raise unsupported(node, f"constant of shape {value.shape}: only one value, or one per channel")
    spread: np.ndarray[Any, Any] = np.broadcast_to(full.reshape(-1), (shape.channels,)).copy()
    return spread


def batch_norm(at: Importer, node: Any) -> None:
    """BatchNormalization in inference, as scale and shift."""
    source = at.tensor(node, 0)
    if attributes(node).get("training_mode", 0):
        raise unsupported(node, "in training mode; export the network in evaluation mode")
    gain, bias, mean, variance = (np.asarray(at.constant(node, index), np.float64) for index in range(1, 5))
    scale = gain / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
    op = ir.Affine(
        node.name or node.output[0],
        (source,),
        node.output[0],
        scale=at.float32(scale),
        shift=at.float32(bias - mean * scale),
    )
    at.emit(op, at.shapes[source])


def pool(at: Importer, node: Any) -> None:
    """MaxPool and AveragePool."""
    source, values = at.tensor(node, 0), attributes(node)
    if len(node.output) > 1 and node.output[1]:
        raise unsupported(node, "indices are not computed")
    shape = at.shapes[source]
    sliding = window(node, shape, tuple(values["kernel_shape"]))
    output = ir.Shape(shape.channels, *sliding.output(shape, ceil=bool(values.get("ceil_mode", 0))))
    names = (node.name or node.output[0], (source,), node.output[0])
    op: ir.Op
    if node.op_type == "MaxPool":
        op = ir.MaxPool(*names, window=sliding)
    else:
        op = ir.AveragePool(*names, window=sliding, count_padding=bool(values.get("count_include_pad", 0)))
    at.emit(op, positive(node, output))


def mean(at: Importer, node: Any) -> None:
    """GlobalAveragePool, and ReduceMean over both spatial axes."""
    source, values = at.tensor(node, 0), attributes(node)
    shape = at.shapes[source]
    keep = True
    if node.op_type == "ReduceMean":
        given = at.constant(node, 1)
        axes = sorted(int(a) % 4 for a in (values.get("axes", ()) if given is None else given.reshape(-1)))
        keep = bool(values.get("keepdims", 1))
        if shape.flat or axes != [2, 3]:
            raise unsupported(node, f"over axes {axes}: only over height and width")
    at.emit(
        ir.Mean(node.name or node.output[0], (source,), node.output[0]),
        ir.Shape(shape.channels, flat=not keep),
    )


def concat(at: Importer, node: Any) -> None:
    """Concat along channels."""
    sources = tuple(at.tensor(node, index) for index in range(len(node.input)))
    shapes = [at.shapes[name] for name in sources]
    first = shapes[0]
    axis = attributes(node)["axis"] % (2 if first.flat else 4)
    if axis != 1 or any((s.height, s.width, s.flat) != (first.height, first.width, first.flat) for s in shapes):
        raise unsupported(node, f"axis {axis} of {shapes}: only along channels, of equal planes")
    shape = ir.Shape(sum(s.channels for s in shapes), first.height, first.width, first.flat)
    at.emit(ir.Concat(node.name or node.output[0], sources, node.output[0]), shape)


def flatten(at: Importer, node: Any) -> None:
    """Flatten and Reshape, where each image becomes a vector or nothing changes."""
    source = at.tensor(node, 0)
    shape = at.shapes[source]
    if node.op_type == "Flatten":
        if attributes(node).get("axis", 1) not in (1, -1 if shape.flat else -3):
            raise unsupported(node, "only axis 1")
        target = [0, -1]
    else:
        target = [int(size) for size in np.asarray(at.constant(node, 1)).reshape(-1)]
    rest = target[1:]
    dims = (shape.channels,) if shape.flat else (shape.channels, shape.height, shape.width)
    if len(rest) == len(dims) and all(a in (-1, b) for a, b in zip(rest, dims, strict=True)):
        at.aliases[node.output[0]] = source
    elif len(rest) == 1 and rest[0] in (-1, shape.floats):
        name = node.name or node.output[0]
        at.emit(ir.Flatten(name, (source,), node.output[0]), ir.Shape(shape.floats, flat=True))
    else:
        raise unsupported(node, f"to {target}: only (N, features)")


def matrix(at: Importer, node: Any) -> None:
    """Gemm and MatMul with a constant right-hand side."""
    source, values = at.tensor(node, 0), attributes(node)
    weight, bias = at.constant(node, 1), at.constant(node, 2)
    assert weight is not None
    if values.get("transA", 0) or weight.ndim != 2 or not at.shapes[source].flat:
        raise unsupported(node, f"only (N, K) times a constant matrix, operand is {weight.shape}")
    rows = weight if values.get("transB", 0) else weight.T
    if rows.shape[1] != at.shapes[source].channels:
        raise unsupported(node, f"weight {rows.shape} does not fit {at.shapes[source].channels} features")
    offset = np.zeros(1) if bias is None else bias.reshape(-1) * values.get("beta", 1.0)
    if offset.size not in (1, rows.shape[0]):
        raise unsupported(node, f"bias {offset.shape} of {rows.shape[0]} features: only one value, or one per feature")
    op = ir.Linear(
        node.input[1],
        (source,),
        node.output[0],
        weight=at.float32(rows * np.float32(values.get("alpha", 1.0))),
        bias=at.float32(np.broadcast_to(offset, rows.shape[:1])),
    )
    at.emit(op, ir.Shape(rows.shape[0], flat=True))


def identity(at: Importer, node: Any) -> None:
    """Identity, and Dropout in inference."""
    if node.op_type == "Dropout" and np.any(at.constant(node, 2)):
        raise unsupported(node, "in training mode; export the network in evaluation mode")
    if node.input[0] in at.constants:
        at.constants[node.output[0]] = at.constants[node.input[0]]
    else:
        at.aliases[node.output[0]] = at.tensor(node, 0)


def constant(at: Importer, node: Any) -> None:
    """Constant."""
    values = attributes(node)
    value = values["value"] if "value" in values else next(iter(values.values()))
    is_tensor = isinstance(value, onnx.TensorProto)
    at.constants[node.output[0]] = numpy_helper.to_array(value) if is_tensor else np.asarray(value)


HANDLERS: dict[str, Handler] = {
    "Add": binary,
    "AveragePool": pool,
    "BatchNormalization": batch_norm,
    "Clip": activation(clip),
    "Concat": concat,
    "Constant": constant,
    "Conv": conv,
    "Div": binary,
    "Dropout": identity,
    "Flatten": flatten,
    "Gemm": matrix,
    "GlobalAveragePool": mean,
    "HardSwish": activation(lambda at, node: ir.Activation(ir.Kind.HARD_SWISH)),
    "Identity": identity,
    "LeakyRelu": activation(leaky),
    "MatMul": matrix,
    "MaxPool": pool,
    "Mul": binary,
    "ReduceMean": mean,
    "Relu": activation(lambda at, node: ir.Activation(ir.Kind.CLAMP, 0.0, FLOAT_MAX)),
    "Reshape": flatten,
    "Sigmoid": activation(lambda at, node: ir.Activation(ir.Kind.SIGMOID)),
    "Sub": binary,
}


def import_onnx(path: Path) -> ir.Graph:
    """Reads an ONNX file with one image input (N, C, H, W) and one output (N, K).

    Raises:
        ExportError: an operator, an attribute or a shape that the engine does not run, with its node.
    """
    model = onnx.load(path)
    at = Importer(model)
    inputs = [item for item in model.graph.input if item.name not in at.constants]
    if len(inputs) != 1 or len(model.graph.output) != 1:
        raise ExportError(
            f"{path}: {len(inputs)} inputs, {len(model.graph.output)} outputs; the engine takes one of each"
        )
    dims = [int(d.dim_value) for d in inputs[0].type.tensor_type.shape.dim]
    if len(dims) != 4 or min(dims[1:]) < 1:
        raise ExportError(f"{path}: input is {dims}; the engine needs (N, C, H, W) with fixed C, H, W")
    at.shapes[inputs[0].name] = ir.Shape(dims[1], dims[2], dims[3])
    for node in model.graph.node:
        if node.op_type not in HANDLERS or node.domain not in ("", "ai.onnx"):
            raise unsupported(node, f"the sparse engine runs only {', '.join(sorted(HANDLERS))}")
        HANDLERS[node.op_type](at, node)
    output = model.graph.output[0].name
    return ir.Graph(inputs[0].name, at.aliases.get(output, output), tuple(at.ops), at.shapes)
