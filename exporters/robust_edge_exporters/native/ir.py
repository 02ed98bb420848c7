"""The small typed graph between ONNX and C: operators as frozen dataclasses, shapes per image.

The batch dimension is implicit: every tensor is (N, C, H, W) or (N, K), and the caller of the network chooses N.
Each operator is a class in `operators`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from robust_edge_exporters.native.c_source import c_enumerators
from robust_edge_exporters.native.geometry import Shape, Tensor, Window

Array = npt.NDArray[np.float32]


class Kind(enum.Enum):
    """Activation functions; the values are the enumerators of activation.h, in the same order."""

    LINEAR = "LINEAR"
    CLAMP = "CLAMP"
    LEAKY_RELU = "LEAKY_RELU"
    SIGMOID = "SIGMOID"
    HARD_SWISH = "HARD_SWISH"
    SILU = "SILU"


assert tuple(kind.value for kind in Kind) == c_enumerators("activation.h", "activation_kind")


@dataclass(frozen=True)
class Activation:
    """An element-wise function; `lo` and `hi` are the bounds of a CLAMP, `lo` is the slope of a LEAKY_RELU."""

    kind: Kind = Kind.LINEAR
    lo: float = 0.0
    hi: float = 0.0


NONE = Activation()


@dataclass(frozen=True)
class Call:
    """A call `function(job, &table)` in the generated C; the table is a constant struct.

    Attributes:
        function: name of the C function, defined in the header of the same name unless `header` is given.
        struct: name of the struct type of the table.
        fields: values of the table's fields: tensors, activations, arrays of floats, tuples of integers, numbers, or C
            text.
        header: name of the header without .h.
    """

    function: str
    struct: str
    fields: Mapping[str, object]
    header: str = ""


@dataclass(frozen=True)
class Op:
    """One operator, which reads tensors by name and writes one; its name is that of its weight or of its ONNX node."""

    name: str
    inputs: tuple[str, ...]
    output: str
    act: Activation = NONE

    fuses_activation: ClassVar[bool] = True  # whether it applies `act`

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of all tensors that the operator reads."""
        return self.inputs

    @property
    def overwrites(self) -> str | None:
        """Name of the input tensor whose memory the output may use, if no later operator reads it."""
        return None

    @property
    def constants(self) -> tuple[Array, ...]:
        """Constant values that must be finite."""
        return ()

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[Call, ...]:
        """The C calls that compute the operator, for operators without a kernel."""
        raise NotImplementedError(f"{type(self).__name__} has no C")


@dataclass(frozen=True, kw_only=True)
class Weighted(Op):
    """An operator with weights (outputs, ...) and a bias (outputs,), which a kernel computes; floats, or integers."""

    weight: npt.NDArray[Any]
    bias: npt.NDArray[Any]

    @property
    def constants(self) -> tuple[Array, ...]:
        """The bias; the weight is checked by `passes.rounded`."""
        return (self.bias,)

    @property
    def size(self) -> int:
        """Number of weights of the layer in the network."""
        return int(self.weight.size)

    @property
    def density(self) -> float:
        """Fraction of weights that are not zero."""
        return float(np.count_nonzero(self.weight)) / self.weight.size


@dataclass(frozen=True, kw_only=True)
class Convolution(Weighted):
    """Convolution with weight (O, I/groups, kh, kw) and bias (O,); adds tensor `residual` before the activation."""

    window: Window
    groups: int = 1
    residual: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The input and the residual."""
        return self.inputs if self.residual is None else (*self.inputs, self.residual)

    @property
    def overwrites(self) -> str | None:
        """The residual, whose pixels are read just before the same pixels of the output are written."""
        return None if self.residual in self.inputs else self.residual


@dataclass(frozen=True)
class Graph:
    """Operators in topological order: every tensor is computed before it is read."""

    input: str
    output: str
    ops: tuple[Op, ...]
    shapes: Mapping[str, Shape]

    def with_ops(self, ops: list[Op]) -> Graph:
        """A graph with the same input and output and other operators."""
        return replace(self, ops=tuple(ops))

    @cached_property
    def readers(self) -> dict[str, list[int]]:
        """Indices of the operators that read each tensor, by name; the graph's output has reader -1."""
        found: dict[str, list[int]] = {self.output: [-1]}
        for index, op in enumerate(self.ops):
            for name in op.reads:
                found.setdefault(name, []).append(index)
        return found
