"""The small typed graph between ONNX and C: operators as frozen dataclasses, shapes per image.

Batch is implicit: every tensor is (N, C, H, W) or (N, K) with N left to the caller of the compiled network.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

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
class Shape:
    """One image's tensor: (C, H, W), or a vector of C features when `flat`."""

    channels: int
    height: int = 1
    width: int = 1
    flat: bool = False

    @property
    def pixels(self) -> int:
        """Elements of a plane."""
        return self.height * self.width

    @property
    def floats(self) -> int:
        """Elements of the tensor."""
        return self.channels * self.pixels


@dataclass(frozen=True)
class Op:
    """One operator: it reads tensors by name and writes one; named after its weight, or its ONNX node."""

    name: str
    inputs: tuple[str, ...]
    output: str
    act: Activation = NONE


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window: pads are (top, left, bottom, right)."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)

    def output(self, shape: Shape, *, ceil: bool = False) -> tuple[int, int]:
        """Height and width after the window has slid over `shape`."""
        sizes = []
        for axis, size in enumerate((shape.height, shape.width)):
            pads = self.pads[axis] + self.pads[axis + 2]
            free = size + pads - self.dilations[axis] * (self.kernel[axis] - 1) - 1
            steps = free // self.strides[axis]
            if ceil and free % self.strides[axis]:
                steps += (steps + 1) * self.strides[axis] < size + self.pads[axis]
            sizes.append(steps + 1)
        return sizes[0], sizes[1]


@dataclass(frozen=True)
class Conv(Op):
    """Convolution: weight (O, I/groups, kh, kw), bias (O,); adds tensor `residual` before the activation."""

    weight: Array = None  # type: ignore[assignment]
    bias: Array = None  # type: ignore[assignment]
    window: Window = None  # type: ignore[assignment]
    groups: int = 1
    residual: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """Inputs and the residual."""
        return self.inputs if self.residual is None else (*self.inputs, self.residual)


@dataclass(frozen=True)
class Linear(Op):
    """Matrix product: weight (M, K), bias (M,)."""

    weight: Array = None  # type: ignore[assignment]
    bias: Array = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Affine(Op):
    """scale * x + shift by channel, (C,) each."""

    scale: Array = None  # type: ignore[assignment]
    shift: Array = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Activate(Op):
    """The activation alone."""


@dataclass(frozen=True)
class Add(Op):
    """Sum of two tensors; the second may hold one value per channel."""


@dataclass(frozen=True)
class Mul(Op):
    """Product of two tensors; the second may hold one value per channel."""


@dataclass(frozen=True)
class MaxPool(Op):
    """Maximum over a window; padding never wins."""

    window: Window = None  # type: ignore[assignment]


@dataclass(frozen=True)
class AveragePool(Op):
    """Mean over a window; `count_padding` divides by padded pixels too."""

    window: Window = None  # type: ignore[assignment]
    count_padding: bool = False


@dataclass(frozen=True)
class Mean(Op):
    """Mean of each plane."""


@dataclass(frozen=True)
class Concat(Op):
    """Tensors one after the other along channels."""


@dataclass(frozen=True)
class Flatten(Op):
    """(C, H, W) to a vector of C·H·W features."""


@dataclass(frozen=True)
class Graph:
    """Operators in an order in which every input is computed before it is read."""

    input: str
    output: str
    ops: tuple[Op, ...]
    shapes: Mapping[str, Shape]

    def with_ops(self, ops: list[Op]) -> Graph:
        """The same ends over other operators."""
        return replace(self, ops=tuple(ops))

    @cached_property
    def readers(self) -> dict[str, list[int]]:
        """Tensor name to indices of the operators that read it; the graph's output has reader -1."""
        found: dict[str, list[int]] = {self.output: [-1]}
        for index, op in enumerate(self.ops):
            for name in reads(op):
                found.setdefault(name, []).append(index)
        return found


def reads(op: Op) -> tuple[str, ...]:
    """Names of all tensors that `op` reads."""
    return op.reads if isinstance(op, Conv) else op.inputs
