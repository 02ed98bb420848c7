"""The operators of the engine: one module each, with one row here.

A module defines `ONNX`: the types of ONNX nodes that it imports, each with a function `(builder, node)` that appends an
operator to the graph. The operator is a subclass of `ir.Op` in the same module: a frozen dataclass that holds what the
node says, and whose `calls` are the C that computes it, in a header of csrc of the function's name. Operators with
weights are computed by the kernels of `native.kernels` instead.
"""

from importlib import import_module

from robust_edge_exporters.native.builder import Handler

OPERATORS = (
    "activate",
    "add",
    "affine",
    "average_pool",
    "concat",
    "constant",
    "conv",
    "flatten",
    "identity",
    "linear",
    "max_pool",
    "mean",
    "mul",
)

HANDLERS: dict[str, Handler] = {
    onnx_type: handler for name in OPERATORS for onnx_type, handler in import_module(f"{__name__}.{name}").ONNX.items()
}
