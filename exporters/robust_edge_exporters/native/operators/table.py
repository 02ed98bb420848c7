"""The table of operators; each has a module.

A module defines `ONNX`: a function `(builder, node)` for each type of ONNX node that it imports, which appends an
operator to the graph, or names a view if the node only moves elements. The operator is a subclass of `ir.Op` in the
same module, a frozen dataclass with the attributes of the node. Its `calls` are calls of C functions in headers of
csrc. Operators with weights are computed by the kernels in `native.kernels` instead.
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
    "conv_transpose",
    "elu",
    "expand",
    "flatten",
    "gelu",
    "group_norm",
    "hard_sigmoid",
    "identity",
    "layer_norm",
    "linear",
    "max_pool",
    "mean",
    "mul",
    "pad",
    "prelu",
    "reduce_max",
    "resize",
    "silu",
    "slice",
    "softplus",
    "squeeze",
    "tanh",
    "transpose",
    "where",
)

HANDLERS: dict[str, Handler] = {
    onnx_type: handler
    for name in OPERATORS
    for onnx_type, handler in import_module(f"{__package__}.{name}").ONNX.items()
}
