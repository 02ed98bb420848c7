"""Kernel: the base class of the loops that compute weighted operators, and what a plan says of each operator."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.geometry import Shape, Tensor
from robust_edge_exporters.native.program import Program
from robust_edge_exporters.native.tiling import Tiling
from robust_edge_exporters.native.weights import Packer, Sections

Family = Literal["sparse", "dense"]
OpT = TypeVar("OpT", bound=ir.Weighted)
TilingT = TypeVar("TilingT", bound="Tiling | None")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the caller of the export decides.

    Attributes:
        images: of a pass, at most.
        block_bytes: packed input of a channel block, about what the first-level cache holds.
        kernel: `sparse` stores the nonzeros of every layer, `dense` all weights; by default, what is estimated faster.
    """

    images: int = 4
    block_bytes: int = 64 * 1024
    kernel: Family | None = None

    def __post_init__(self) -> None:
        if self.images < 1 or self.block_bytes < 4096:
            raise ValueError(f"images {self.images} must be at least 1, block_bytes {self.block_bytes} at least 4096")
        if self.kernel not in (None, "sparse", "dense"):
            raise ValueError(f"kernel {self.kernel}: geometry decides; force sparse, dense or nothing")


class Kernel(ABC, Generic[OpT, TilingT]):
    """One way to compute an operator's products; its C is a header of csrc.

    The plan takes, among the kernels of the table that suit a layer, the one of the least cost.

    Attributes:
        name: in the manifest.
        operator: whose layers it computes.
        family: whether it stores nonzeros or all weights; None: it is used for either, where it suits.
    """

    name: ClassVar[str]
    operator: ClassVar[type[ir.Weighted]]
    family: ClassVar[Family | None]

    @abstractmethod
    def suits(self, op: OpT, source: Shape, output: Shape, options: Options) -> bool:
        """Whether it can compute `op` with this input and output, and is meant to."""

    @abstractmethod
    def cost(self, op: OpT, output: Shape) -> float:
        """Estimated time, in the same unit for all kernels of an operator."""

    @abstractmethod
    def tile(self, op: OpT, source: Shape, output: Shape, options: Options) -> TilingT:
        """The sizes of its loops."""

    @abstractmethod
    def pack(self, packer: Packer, op: OpT, tiling: TilingT) -> Sections:
        """Appends the weights in the order in which it reads them."""

    @abstractmethod
    def emit(self, program: Program, name: str, layer: Layer, sections: Sections) -> None:
        """Adds the call of its C function, and the tables that the call needs, to the program."""


@dataclass(frozen=True)
class Layer:
    """An operator with its tensors, in the order of `op.reads`; weighted ones also have a kernel."""

    op: ir.Op
    inputs: tuple[Tensor, ...]
    output: Tensor
    kernel: Kernel[Any, Any] | None = None
    tiling: Tiling | None = None
