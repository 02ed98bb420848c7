"""GraphBuilder: the state of the ONNX import, to which operators are added node by node, with their shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.geometry import Shape, layout
from robust_edge_exporters.native.views import (
    Indices,
    Rearrange,
    View,
    dims_of,
    identity,
    image_index,
    shape_of,
    tables_of,
)
from robust_edge_runtimes.core.errors import ExportError

ANY_BATCH = 2  # images in which views of a network for any batch are computed: two show which elements they mix


class GraphBuilder:
    """Constants, shapes and operators of the nodes imported so far.

    Attributes:
        constants: values of constant tensors, by name.
        shapes: shapes of the tensors that operators write, by name.
        views: tensors that list the elements of another tensor in another order, by name.
        aliases: tensors that are equal to a tensor of `shapes`, by name.
        batch: number of images in ONNX shapes.
        of_batch: names of constants that were computed from the number of images.
        above: conditions by name: where the elements of a tensor are above a value.
    """

    def __init__(self, model: onnx.ModelProto, batch: int = ANY_BATCH) -> None:
        self.constants: dict[str, np.ndarray[Any, Any]] = {
            tensor.name: _values(tensor) for tensor in model.graph.initializer
        }
        self.shapes: dict[str, Shape] = {}
        self.views: dict[str, View] = {}
        self.ops: list[ir.Op] = []
        self.aliases: dict[str, str] = {}
        self.batch = batch
        self.of_batch: set[str] = set()
        self.above: dict[str, tuple[str, float]] = {}

    def constant(self, node: Any, index: int) -> np.ndarray[Any, Any] | None:
        """Value of the constant input `index`, None if it is absent; a non-constant input is an error."""
        if index >= len(node.input) or not node.input[index]:
            return None
        name = node.input[index]
        if name not in self.constants:
            raise unsupported(node, f"input {index} ({name}) must be a constant")
        if name in self.of_batch and self.constants[name].dtype.kind == "f":
            raise unsupported(node, f"input {index} ({name}) depends on the number of images of a batch")
        return self.constants[name]

    def required(self, node: Any, index: int) -> np.ndarray[Any, Any]:
        """Value of the constant input `index`; an absent or non-constant input is an error."""
        value = self.constant(node, index)
        assert value is not None
        return value

    def integers(self, node: Any, index: int, attribute: str) -> list[int] | None:
        """Integers that are the constant input `index` or, in older opsets, an attribute; None if both are absent."""
        given = self.constant(node, index)
        value = attributes(node).get(attribute) if given is None else given.reshape(-1)
        return None if value is None else [int(number) for number in value]

    def resolved(self, node: Any, index: int) -> str:
        """Name of input `index` in `shapes` or `views`; a constant input is an error."""
        name = str(self.aliases.get(node.input[index], node.input[index]))
        if name not in self.shapes and name not in self.views:
            raise unsupported(node, f"input {index} ({node.input[index]}) must not be a constant")
        return name

    def tensor(self, node: Any, index: int) -> str:
        """Name of the tensor of input `index`, an image (C, H, W) or a vector (K,) in its own order.

        A view is copied into its order, once; one of dimensions (N, C, L) is an image of one row.
        """
        name = self.resolved(node, index)
        view = self.views.get(name)
        if view is None:
            return name
        stored = self.stored(node, view)
        order = identity(self.shapes[stored], self.batch).reshape(view.index.shape)
        self.views[name] = View(stored, order)
        return stored

    def view(self, node: Any, index: int) -> View:
        """The elements of input `index`, in the order of ONNX."""
        name = self.resolved(node, index)
        return self.views.get(name) or View(name, identity(self.shapes[name], self.batch))

    def is_view(self, node: Any, index: int) -> bool:
        """Whether input `index` lists the elements of a tensor in another order or of other dimensions."""
        return self.resolved(node, index) in self.views

    def dims(self, node: Any, index: int) -> tuple[int, ...]:
        """Dimensions (N, ...) of input `index` in ONNX."""
        name = self.resolved(node, index)
        return self.views[name].index.shape if name in self.views else dims_of(self.shapes[name], self.batch)

    def row_order(self, node: Any, shape: Shape) -> Indices | None:
        """Order of an output of `shape` for `append`, which is (N, C, L) if input 0 is; None otherwise."""
        return identity(shape, self.batch)[:, :, 0] if len(self.dims(node, 0)) == 3 else None

    def stored(self, node: Any, view: View) -> str:
        """Name of a tensor that holds the elements of a view in its order; appends a copy unless it is one.

        Args:
            node: the node that reads the view, for errors.
            view: of dimensions (N, K), (N, C, L) or (N, C, H, W).
        """
        shape, dims = self.shapes[view.tensor], view.index.shape
        first = image_index(view.index, shape.floats)
        if first is None or len(dims) not in (2, 3, 4) or dims[0] != self.batch:
            raise unsupported(
                node, f"reads a tensor of dimensions {dims}; the engine needs (N, C, H, W) or (N, K), image by image"
            )
        target = shape_of(dims)
        if target == shape and np.array_equal(first.reshape(-1), np.arange(shape.floats)):
            return view.tensor
        tables = tables_of(first.reshape(1, 1, -1) if target.flat else first.reshape(target.dims), layout(shape))
        if tables is None:  # element by element into a vector, and from there
            row = self.stored(node, replace(view, index=view.index.reshape(self.batch, -1)))
            return self.stored(node, View(row, identity(self.shapes[row], self.batch).reshape(dims)))
        copy = self.new_name(view.tensor)
        self.append(Rearrange(copy, (view.tensor,), copy, tables=tables, fill=view.fill), target)
        return copy

    def new_name(self, stem: str) -> str:
        """A name that no tensor has."""
        return f"{stem}:{len(self.ops)}"

    def add_view(self, output: str, view: View) -> None:
        """Name a view: the output of a node that only moves elements."""
        if self._is_identity(view.index, self.shapes[view.tensor]):
            self.aliases[output] = view.tensor
        else:
            self.views[output] = view

    def _is_identity(self, index: Indices, shape: Shape) -> bool:
        return index.shape == dims_of(shape, self.batch) and np.array_equal(index, identity(shape, self.batch))

    def append(self, op: ir.Op, shape: Shape, index: Indices | None = None) -> None:
        """Append `op`, whose output has `shape`; ONNX lists its elements in the order `index`, if that is given."""
        if index is not None and not self._is_identity(index, shape):
            stored = self.new_name(op.output)
            self.views[op.output] = View(stored, index)
            op = replace(op, output=stored)
        self.ops.append(op)
        self.shapes[op.output] = shape

    def append_elementwise(self, node: Any, index: int, make: Callable[[str], ir.Op]) -> None:
        """Append the operator `make(source)`, which computes each element of input `index` by itself.

        The output of a view that only permutes its tensor is one, too.
        """
        source = self.resolved(node, index)
        if source in self.shapes:
            self.append(make(source), self.shapes[source])
            return
        view = self.views[source]
        if not view.permutes(self.shapes[view.tensor]):
            self.tensor(node, index)
            view = self.views[source]
        self.append(make(view.tensor), self.shapes[view.tensor], view.index)


Handler = Callable[[GraphBuilder, Any], None]


def _values(tensor: onnx.TensorProto) -> np.ndarray[Any, Any]:
    try:
        values: np.ndarray[Any, Any] = numpy_helper.to_array(tensor)
    except ValueError as cause:
        raise ExportError(
            f"the ONNX file does not hold the values of '{tensor.name}' ({cause}), as a bundle's graph.onnx does not; "
            "export the network itself"
        ) from cause
    return values


def float32(values: np.ndarray[Any, Any]) -> ir.Array:
    """The values as a contiguous float32 array."""
    return np.ascontiguousarray(values, dtype=np.float32)


class UnsupportedNode(ExportError):
    """A node that the engine does not run.

    Attributes:
        operator: its ONNX operator.
        node: its name, or that of its output.
        why: the reason, such as an attribute that the engine does not support.
    """

    def __init__(self, operator: str, node: str, why: str) -> None:
        super().__init__(f"{operator} at node '{node}': {why}")
        self.operator, self.node, self.why = operator, node, why


def unsupported(node: Any, why: str) -> UnsupportedNode:
    """The error for a node that the engine does not support."""
    return UnsupportedNode(node.op_type, node.name or node.output[0], why)


def attributes(node: Any) -> dict[str, Any]:
    """Attribute values by name, with strings decoded."""
    values = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def names(node: Any, *inputs: str) -> tuple[str, tuple[str, ...], str]:
    """Name, inputs and output of a node, as arguments of an operator."""
    return node.name or node.output[0], inputs, node.output[0]
