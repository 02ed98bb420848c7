"""Kernel: the base class of all kernels for weighted operators; Layer: an operator with its tensors in a plan."""

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
    """Options of an export to C.

    Attributes:
        images: largest number of images that are computed at once.
        block_bytes: bytes of the packed input of a channel block, about the size of the first-level cache.
        join_bytes: bytes of the planes between a 1x1 convolution and a depthwise one from which on both are computed
            together, a few channels at a time (joined.py); about the size of the second-level cache.
        kernel: `sparse` stores only the nonzeros of every layer, `dense` stores all weights; None for the family with
            the smaller estimated time, layer by layer.
    """

    images: int = 4
    block_bytes: int = 64 * 1024
    join_bytes: int = 512 * 1024
    kernel: Family | None = None

    def __post_init__(self) -> None:
        if self.images < 1 or self.block_bytes < 4096 or self.join_bytes < 0:
            raise ValueError(
                f"images {self.images} must be at least 1, block_bytes {self.block_bytes} at least 4096, join_bytes "
                f"{self.join_bytes} at least 0"
            )
        if self.kernel not in (None, "sparse", "dense"):
            raise ValueError(f"kernel {self.kernel}: the geometry of a layer decides; use sparse, dense or None")


class Kernel(ABC, Generic[OpT, TilingT]):
    """One implementation of a weighted operator; its C function is in a header of csrc.

    Of the kernels in the table that suit a layer the plan uses the one with the smallest cost.

    Attributes:
        name: name in the manifest.
        operator: the class of operators that it computes.
        family: `sparse` if it stores only nonzeros, `dense` if it stores all weights; None if it is used for both.
    """

    name: ClassVar[str]
    operator: ClassVar[type[ir.Weighted]]
    family: ClassVar[Family | None]

    @abstractmethod
    def suits(self, op: OpT, source: Shape, output: Shape, options: Options) -> bool:
        """Whether the kernel can compute `op` with this input and output, and is suitable for it."""

    @abstractmethod
    def cost(self, op: OpT, output: Shape) -> float:
        """Estimated time, in the same unit for all kernels of an operator."""

    @abstractmethod
    def tile(self, op: OpT, source: Shape, output: Shape, options: Options) -> TilingT:
        """The sizes of the kernel's loops; None if it has no tiles."""

    @abstractmethod
    def pack(self, packer: Packer, op: OpT, tiling: TilingT) -> Sections:
        """Append the weights in the order in which the kernel reads them."""

    @abstractmethod
    def emit(self, program: Program, name: str, layer: Layer, sections: Sections) -> None:
        """Add the call of the kernel's C function and its tables to the program."""


@dataclass(frozen=True)
class Layer:
    """An operator with its input tensors, in the order of `op.reads`, and its output; weighted ones have a kernel.

    Attributes:
        joined: whether it is computed together with the layer before it (joined.py).
    """

    op: ir.Op
    inputs: tuple[Tensor, ...]
    output: Tensor
    kernel: Kernel[Any, Any] | None = None
    tiling: Tiling | None = None
    joined: bool = False
