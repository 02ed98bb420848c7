"""The small typed graph between ONNX and C: operators as frozen dataclasses, shapes per image.

Batch is implicit: every tensor is (N, C, H, W) or (N, K) with N left to the caller of the compiled network. Each
operator is a class of its own in `operators`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from robust_edge_exporters.native.geometry import Shape, Tensor

Array = npt.NDArray[np.float32]


class Kind(enum.Enum):
    """Activation functions; the values are the C enumerators."""

    LINEAR = "LINEAR"
    CLAMP = "CLAMP"
    LEAKY_RELU = "LEAKY_RELU"
    SIGMOID = "SIGMOID"
    HARD_SWISH = "HARD_SWISH"


@dataclass(frozen=True)
class Activation:
    """An element-wise function; `lo`, `hi` bound a CLAMP, `lo` is the slope of a LEAKY_RELU."""

    kind: Kind = Kind.LINEAR
    lo: float = 0.0
    hi: float = 0.0


NONE = Activation()


@dataclass(frozen=True)
class Call:
    """A call `function(job, &table)` of generated C, whose table is a struct.

    Attributes:
        function: of the header `function`.h, unless `header` is given.
        struct: the type of the table.
        fields: of the table: tensors, activations, arrays of floats or pairs, numbers, or C text.
        header: name of the header, without .h.
    """

    function: str
    struct: str
    fields: Mapping[str, object]
    header: str = ""


@dataclass(frozen=True)
class Op:
    """One operator: it reads tensors by name and writes one; named after its weight, or its ONNX node."""

    name: str
    inputs: tuple[str, ...]
    output: str
    act: Activation = NONE

    fuses_activation: ClassVar[bool] = True  # whether it applies `act`

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of all tensors that it reads."""
        return self.inputs

    @property
    def overwrites(self) -> str | None:
        """Name of the tensor whose memory the output may take, if nothing reads the tensor later."""
        return None

    @property
    def constants(self) -> tuple[Array, ...]:
        """Values that must be finite."""
        return ()

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[Call, ...]:
        """The C that computes it, unless a kernel does."""
        raise NotImplementedError(f"{type(self).__name__} has no C")


@dataclass(frozen=True, kw_only=True)
class Weighted(Op):
    """An operator that multiplies by weights (outputs, ...) and adds a bias (outputs,); a kernel computes it."""

    weight: Array
    bias: Array

    @property
    def constants(self) -> tuple[Array, ...]:
        """The bias; `passes.rounded` checks the weight."""
        return (self.bias,)

    @property
    def density(self) -> float:
        """Fraction of weights that are not zero."""
        return float(np.count_nonzero(self.weight)) / self.weight.size


@dataclass(frozen=True)
class Graph:
    """Operators in an order in which every input is computed before it is read."""

    input: str
    output: str
    ops: tuple[Op, ...]
    shapes: Mapping[str, Shape]

    def with_ops(self, ops: list[Op]) -> Graph:
        """The same input and output over other operators."""
        return replace(self, ops=tuple(ops))

    @cached_property
    def readers(self) -> dict[str, list[int]]:
        """Tensor name to indices of the operators that read it; the graph's output has reader -1."""
        found: dict[str, list[int]] = {self.output: [-1]}
        for index, op in enumerate(self.ops):
            for name in op.reads:
                found.setdefault(name, []).append(index)
        return found
