"""The operators of a graph of integers. What each computes is in reference.py, loop by loop; the C computes the same.

Tensors are codes (N, C, H, W) or (N, K) of 8 bits. The shapes of the graph count words, each of which holds the codes
of four consecutive channels of one pixel, or of four consecutive features: so tensors lie in memory as those of float
networks do, with a word in place of a float. Weights and biases are integers; a bias is what the sums start from, which
contains the zeros of the input and the half of the first shift.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.geometry import Shape, Tensor, Window
from robust_edge_exporters.native.int8.arithmetic import Coding, Requantisation, Table
from robust_edge_exporters.native.operators.window import pooling

WORD = 4  # codes
Parts = tuple[tuple[int, int], ...]
"""(channels, pixels) of each image that was flattened to a part of the features: features of their own have one pixel.

Features lie as the words of the images do: by word of channels, then by pixel, then by channel of the word.
"""


def words(shape: Shape) -> Shape:
    """The shape in words of a tensor of codes; channels are rounded up to whole words."""
    return Shape(-(-shape.channels // WORD), shape.height, shape.width, shape.flat)


def requantisation_fields(r: Requantisation) -> dict[str, object]:
    """The C struct requantisation, field by field, without the records of a layer's channels."""
    names: dict[str, object] = {"down": r.down, "offset": r.offset, "residual_multiplier": r.residual}
    names |= {"lowest": r.lowest, "highest": r.highest}
    if r.table is not None:
        names["table"] = r.table
    return {f"requantisation.{name}": value for name, value in names.items()}


def channel_fields(r: Requantisation) -> dict[str, object]:
    """The C struct channel of a requantisation that all channels share, field by field."""
    names = {"start": r.bias, "multiplier": r.multiplier, "first": r.first}
    return {f"channel.{name}": int(values[0]) for name, values in names.items()}


def pointwise(function: str, inputs: tuple[Tensor, ...], output: Tensor, **more: object) -> tuple[ir.Call, ...]:
    """A call of a C function with a struct pointwise."""
    fields: dict[str, object] = {"in": inputs[0], "out": output}
    if len(inputs) > 1:
        same = (inputs[0].height, inputs[0].width) == (inputs[1].height, inputs[1].width)
        fields |= {"second": inputs[1], "broadcast": int(not same)}
    return (ir.Call(function, "pointwise", fields | more, "pointwise_codes"),)


@dataclass(frozen=True, kw_only=True)
class Quantise(ir.Op):
    """The first operator: codes of the image's float32 values x, floor(scale[c] * x + shift[c]), cut to 0 to 255.

    The product of two float32 values and the sum are computed in double precision, so that a fused multiply-add makes
    no difference. `shift` contains the code of 0 and the half of the rounding. A NaN has the code 0.
    """

    scale: npt.NDArray[np.float32]
    shift: npt.NDArray[np.float64]

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which reads the caller's images."""
        fields = {"out": output, "channels": len(self.scale), "scale": self.scale, "shift": self.shift}
        return (ir.Call("quantise", "quantise", fields),)


@dataclass(frozen=True, kw_only=True)
class QuantConv(ir.Convolution):
    """Convolution of codes by weights of -64 to 64, to codes; adds the codes of `residual`.

    Attributes:
        padding: code of the pixels around the image, the input's zero.
    """

    padding: int
    requantisation: Requantisation


@dataclass(frozen=True, kw_only=True)
class QuantLinear(ir.Weighted):
    """Product of (N, K) codes and weights (M, K), to codes, or to logits in float32.

    Attributes:
        parts: what was flattened to the K features.
        requantisation: to codes; None for logits.
        scales: (M,) of logits: float32(sum) * scale, both rounded as float32.
    """

    parts: Parts
    requantisation: Requantisation | None = None
    scales: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True)
class QuantAdd(ir.Op):
    """Requantised sum of two tensors: the first is the sum, the second the residual."""

    requantisation: Requantisation

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which loops over the planes."""
        r = self.requantisation
        return pointwise("add_codes", inputs, output, **channel_fields(r), **requantisation_fields(r))


@dataclass(frozen=True, kw_only=True)
class QuantMul(ir.Op):
    """Requantised product of two tensors, (q1 - zeros[0]) * (q2 - zeros[1]).

    The second may have planes of one pixel.
    """

    zeros: tuple[int, int]
    requantisation: Requantisation

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which loops over the planes."""
        r, zeros = self.requantisation, {"zero": self.zeros[0], "second_zero": self.zeros[1]}
        return pointwise("mul_codes", inputs, output, **zeros, **channel_fields(r), **requantisation_fields(r))


@dataclass(frozen=True, kw_only=True)
class QuantTable(ir.Op):
    """table[q] of each code: an activation, or the same values in another coding."""

    table: Table

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which loops over the planes."""
        return pointwise("table_codes", inputs, output, **{"requantisation.table": self.table})


@dataclass(frozen=True, kw_only=True)
class QuantMean(ir.Op):
    """Requantised sum of each plane, to planes of one pixel, or to features if `flat`."""

    requantisation: Requantisation
    flat: bool

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which sums each plane."""
        r, pitch = self.requantisation, 1 if self.flat else output.pitch
        view = Tensor(output.offset, inputs[0].channels, 1, 1, pitch, output.image)
        fields = channel_fields(r) | requantisation_fields(r)
        return (ir.Call("mean_codes", "pointwise", {"in": inputs[0], "out": view} | fields),)


@dataclass(frozen=True, kw_only=True)
class QuantMaxPool(ir.Op):
    """The largest code of a window; pixels around the image are ignored.

    Attributes:
        size: height and width of the output.
    """

    window: Window
    size: tuple[int, int]

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which loops over the rows."""
        return (replace(pooling("max_pool_codes", inputs[0], output, self.window), header="max_pool"),)


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

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which loops over the pixels."""
        counts = int(self.padding is not None)
        window, padding = self.window, self.padding or 0
        return (pooling("average_pool_codes", inputs[0], output, window, count_padding=counts, padding=padding),)


@dataclass(frozen=True)
class QuantFlatten(ir.Op):
    """(C, H, W) to features in the order of the image."""

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which copies the planes of words without padding between them."""
        pixels = inputs[0].height * inputs[0].width
        return pointwise(
            "copy_codes", inputs, replace(inputs[0], offset=output.offset, pitch=pixels, image=output.image)
        )


@dataclass(frozen=True)
class QuantConcat(ir.Op):
    """Concatenation along the channels; all images but the last have whole words."""

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call per input, which copies it."""
        calls: list[ir.Call] = []
        offset = output.offset
        for source in inputs:
            calls += pointwise("copy_codes", (source,), replace(source, offset=offset, image=output.image))
            offset += source.width if output.flat else source.channels * source.pitch
        return tuple(calls)


@dataclass(frozen=True, kw_only=True)
class Dequantise(ir.Op):
    """float32(code - zero) * scale, rounded as float32: logits that no matrix product computes.

    Attributes:
        parts: what was flattened to the logits.
    """

    zero: int
    scale: float
    parts: Parts

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, which writes logit by logit."""
        fields = {"in": inputs[0], "out": output.offset, "out_image": output.image, "parts": len(self.parts)}
        fields |= {"channels": tuple(part[0] for part in self.parts), "pixels": tuple(part[1] for part in self.parts)}
        fields |= {"zero": self.zero, "scale": np.float32(self.scale)}
        return (ir.Call("dequantise", "dequantise", fields),)


@dataclass(frozen=True)
class Int8Graph:
    """A graph of integers.

    Attributes:
        graph: its input is the image in float32, its output the logits in float32.
        codings: what the codes of each tensor stand for.
    """

    graph: ir.Graph
    codings: dict[str, Coding]
