"""ConvTranspose: one convolution for all phases of the output, whose channels are then shuffled into pixels.

At stride s, output pixel q * s + r - pad of a row is the sum over the taps k with k * dilation = j * s + r of weight[k]
times input pixel q - j: for each phase r a convolution at stride 1 with every s-th tap. All phases are computed by
one convolution with s * s times the channels, in which every weight is used once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, attributes, float32, unsupported
from robust_edge_exporters.native.geometry import Shape, Window
from robust_edge_exporters.native.operators.conv import Conv, bias_of
from robust_edge_exporters.native.operators.window import not_empty
from robust_edge_exporters.native.views import identity


@dataclass(frozen=True, kw_only=True)
class ConvTranspose(Conv):
    """The convolution of all phases; `size` counts the weights without the taps that a phase lacks."""

    weights: int

    @property
    def size(self) -> int:
        """Number of weights of the transposed convolution."""
        return self.weights


@dataclass(frozen=True)
class Axis:
    """One axis of a transposed convolution: sizes, stride, dilation, first padding, and output size."""

    size: int
    kernel: int
    stride: int
    dilation: int
    pad: int
    output: int

    @property
    def reach(self) -> int:
        """Input pixels before the last one that a phase reads."""
        return (self.kernel - 1) * self.dilation // self.stride

    @property
    def phase_size(self) -> int:
        """Pixels of a phase that are computed; those of the output begin at `pad`."""
        return max(self.size, -(-(self.pad + self.output) // self.stride))


def conv_transpose(builder: GraphBuilder, node: Any) -> None:
    """Import ConvTranspose in one or two dimensions."""
    source, weight = builder.tensor(node, 0), builder.required(node, 1)
    if weight.ndim not in (3, 4) or weight.ndim != len(builder.dims(node, 0)):
        raise unsupported(node, f"only in one or two dimensions, weight is {weight.shape}")
    weight = weight if weight.ndim == 4 else weight[:, :, None]
    shape, groups = builder.shapes[source], attributes(node).get("group", 1)
    if len(weight) != shape.channels:
        raise unsupported(node, f"weight {weight.shape} does not fit {shape.channels} channels")
    rows, columns = axes_of(node, shape, weight.shape[2:])
    channels, phases = weight.shape[1] * groups, rows.stride * columns.stride
    op = ConvTranspose(
        node.input[1],
        (source,),
        node.output[0],
        weight=phase_weights(weight, groups, rows, columns),
        bias=np.repeat(bias_of(builder, node, channels), phases),
        window=Window(
            (rows.reach + 1, columns.reach + 1),
            pads=(rows.reach, columns.reach, rows.phase_size - rows.size, columns.phase_size - columns.size),
        ),
        groups=groups,
        weights=weight.size,
    )
    output = Shape(channels * phases, rows.phase_size, columns.phase_size)
    n = builder.batch
    by_phase = identity(output, n).reshape(n, channels, rows.stride, columns.stride, output.height, output.width)
    pixels = by_phase.transpose(0, 1, 4, 2, 5, 3).reshape(n, channels, output.height * rows.stride, -1)
    inside = pixels[:, :, rows.pad : rows.pad + rows.output, columns.pad : columns.pad + columns.output]
    builder.append(op, output, inside[:, :, 0] if len(builder.dims(node, 0)) == 3 else inside)


def axes_of(node: Any, shape: Shape, kernel: tuple[int, ...]) -> tuple[Axis, Axis]:
    """The two axes of a node."""
    values = attributes(node)
    if values.get("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in values:
        raise unsupported(node, "with auto_pad or output_shape; give pads")
    strides, dilations = ((1, *values.get(name, (1, 1)))[-2:] for name in ("strides", "dilations"))
    pads, more = tuple(values.get("pads", (0, 0, 0, 0))), (0, *values.get("output_padding", (0, 0)))[-2:]
    if len(pads) == 2:
        pads = (0, pads[0], 0, pads[1])
    axes = []
    for k, size in enumerate((shape.height, shape.width)):
        full = strides[k] * (size - 1) + dilations[k] * (kernel[k] - 1) + 1
        axes.append(Axis(size, kernel[k], strides[k], dilations[k], pads[k], full - pads[k] - pads[k + 2] + more[k]))
    not_empty(node, Shape(1, axes[0].output, axes[1].output))
    return axes[0], axes[1]


def phase_weights(weight: np.ndarray[Any, Any], groups: int, rows: Axis, columns: Axis) -> ir.Array:
    """Weights (I, O/groups, kh, kw) as those of a convolution, (O * phases, I/groups, ...), phases innermost."""
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    inputs, outputs = grouped.shape[1:3]
    found = np.zeros(
        (groups, outputs, rows.stride, columns.stride, inputs, rows.reach + 1, columns.reach + 1), np.float32
    )
    for ky in range(rows.kernel):
        for kx in range(columns.kernel):
            (down, phase_y), (right, phase_x) = (
                divmod(k * axis.dilation, axis.stride) for k, axis in ((ky, rows), (kx, columns))
            )
            taps = grouped[..., ky, kx].transpose(0, 2, 1)
            found[:, :, phase_y, phase_x, :, rows.reach - down, columns.reach - right] = taps
    return float32(found.reshape(-1, *found.shape[4:]))


ONNX = {"ConvTranspose": conv_transpose}
