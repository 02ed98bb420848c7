"""The operators of a graph of integers. What each computes is in reference.py, loop by loop; the C computes the same.

Tensors are codes (N, C, H, W) or (N, K) of 8 bits. The shapes of the graph count words, each of which holds the codes
of four consecutive channels of one pixel, or of four consecutive features: so tensors lie in memory as those of float
networks do, with a word in place of a float. Weights and biases are integers; a bias is what the sums start from, which
contains the zeros of the input and the half of the first shift.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.geometry import Shape, Window
from robust_edge_exporters.native.int8.arithmetic import Coding, Requantisation, Table

WORD = 4  # codes


def words(shape: Shape) -> Shape:
    """The shape in words of a tensor of codes; channels are rounded up to whole words."""
    return Shape(-(-shape.channels // WORD), shape.height, shape.width, shape.flat)


@dataclass(frozen=True, kw_only=True)
class Quantise(ir.Op):
    """The first operator: codes of the image's float32 values x, floor(scale[c] * x + shift[c]), cut to 0 to 255.

    The product of two float32 values and the sum are computed in double precision, so that a fused multiply-add makes
    no difference. `shift` contains the code of 0 and the half of the rounding. A NaN has the code 0.
    """

    scale: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class QuantConv(ir.Weighted):
    """Convolution of codes by weights (O, I/groups, kh, kw) of -64 to 64, to codes; adds the codes of `residual`.

    Attributes:
        padding: code of the pixels around the image, the input's zero.
    """

    window: Window
    groups: int
    padding: int
    requantisation: Requantisation
    residual: str | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The input and the residual."""
        return self.inputs if self.residual is None else (*self.inputs, self.residual)

    @property
    def overwrites(self) -> str | None:
        """The residual, whose pixels are read just before the same pixels of the output are written."""
        return None if self.residual in self.inputs else self.residual


@dataclass(frozen=True, kw_only=True)
class QuantLinear(ir.Weighted):
    """Product of (N, K) codes and weights (M, K), to codes, or to logits in float32.

    Attributes:
        planes: (channels, pixels) of the image that was flattened to the K features; (K, 1) if none was.
        requantisation: to codes; None for logits.
        scales: (M,) of logits: float32(sum) * scale, both rounded as float32.
    """

    planes: tuple[int, int]
    requantisation: Requantisation | None = None
    scales: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class QuantAdd(ir.Op):
    """Requantised sum of two tensors: the first is the sum, the second the residual."""

    requantisation: Requantisation


@dataclass(frozen=True, kw_only=True)
class QuantMul(ir.Op):
    """Requantised product of two tensors, (q1 - zeros[0]) * (q2 - zeros[1]).

    The second may have planes of one pixel.
    """

    zeros: tuple[int, int]
    requantisation: Requantisation


@dataclass(frozen=True, kw_only=True)
class QuantTable(ir.Op):
    """table[q] of each code: an activation, or the same values in another coding."""

    table: Table


@dataclass(frozen=True, kw_only=True)
class QuantMean(ir.Op):
    """Requantised sum of each plane, to planes of one pixel, or to features if `flat`."""

    requantisation: Requantisation
    flat: bool


@dataclass(frozen=True, kw_only=True)
class QuantMaxPool(ir.Op):
    """The largest code of a window; pixels around the image are ignored.

    Attributes:
        size: height and width of the output.
    """

    window: Window
    size: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class QuantAveragePool(ir.Op):
    """The mean code of a window of n pixels, floor((2 * sum + n) / (2 * n)).

    Attributes:
        size: height and width of the output.
        padding: code of the pixels around the image that count, within the window's pads; None if they are ignored.
    """

    window: Window
    size: tuple[int, int]
    padding: int | None


@dataclass(frozen=True)
class QuantFlatten(ir.Op):
    """(C, H, W) to features in the order of the image."""


@dataclass(frozen=True)
class QuantConcat(ir.Op):
    """Concatenation along the channels; all inputs but the last have whole words."""


@dataclass(frozen=True, kw_only=True)
class Dequantise(ir.Op):
    """float32(code - zero) * scale, rounded as float32: logits that no matrix product computes."""

    zero: int
    scale: float


@dataclass(frozen=True)
class Int8Graph:
    """A graph of integers.

    Attributes:
        graph: its input is the image in float32, its output the logits in float32.
        codings: what the codes of each tensor stand for.
    """

    graph: ir.Graph
    codings: dict[str, Coding]
