"""Shapes, sliding windows, and the memory layout of tensors.

A unit is 16 floats (64 bytes), the step in which kernels process pixels. A plane is one channel of one image.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from robust_edge_exporters.native.c_source import c_constant

UNIT = c_constant("vector.h", "UNIT")  # floats
TILE_FLOATS = 256  # output pixels of a tile: 16 AVX-512 accumulators
PADDING_ROWS = 1  # behind each plane, and before the first, where rows are one or two units
CACHE_SET_FLOATS = 256  # planes that lie a multiple of this apart share few sets of the first-level cache


@dataclass(frozen=True)
class Shape:
    """The shape of a tensor for one image: (C, H, W), or a vector of C features if `flat`."""

    channels: int
    height: int = 1
    width: int = 1
    flat: bool = False

    @property
    def pixels(self) -> int:
        """Number of elements of a plane."""
        return self.height * self.width

    @property
    def dims(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        return self.channels, self.height, self.width

    @property
    def floats(self) -> int:
        """Number of elements of the tensor."""
        return self.channels * self.pixels


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window; pads are (top, left, bottom, right)."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)

    def output(self, shape: Shape, *, ceil: bool = False) -> tuple[int, int]:
        """Output height and width for an input of `shape`; `ceil` rounds up, as the ONNX attribute ceil_mode."""
        sizes = []
        for axis, size in enumerate((shape.height, shape.width)):
            pads = self.pads[axis] + self.pads[axis + 2]
            free = size + pads - self.dilations[axis] * (self.kernel[axis] - 1) - 1
            steps = free // self.strides[axis]
            if ceil and free % self.strides[axis]:
                steps += (steps + 1) * self.strides[axis] < size + self.pads[axis]
            sizes.append(steps + 1)
        return sizes[0], sizes[1]

    @property
    def shifts(self) -> tuple[tuple[int, int], ...]:
        """(dy, dx) of each tap: the read pixel minus the output pixel times the stride."""
        rows, columns = (
            [k * self.dilations[axis] - self.pads[axis] for k in range(self.kernel[axis])] for axis in (0, 1)
        )
        return tuple(itertools.product(rows, columns))

    def reaches_only_inside(self, shape: Shape) -> bool:
        """Whether every tap reads inside the plane for at least one output pixel."""
        return all(abs(dy) < shape.height and abs(dx) < shape.width for dy, dx in self.shifts)

    def divides(self, source: Shape, output: Shape) -> bool:
        """Whether the stride is 1 or 2 and the output size is exactly the input size divided by it."""
        stride = self.strides[0]
        exact = (source.height, source.width) == (stride * output.height, stride * output.width)
        return self.strides in ((1, 1), (2, 2)) and exact


@dataclass(frozen=True)
class Tensor:
    """The C struct tensor: position and layout of a tensor in the arena, in floats.

    Attributes:
        offset: position of the first image in the arena.
        pitch: distance from one plane to the next.
        image: distance from one image to the next.
        flat: whether it is a vector of features, stored as one plane of one row.
    """

    offset: int
    channels: int
    height: int
    width: int
    pitch: int
    image: int
    flat: bool = False


def whole_units(floats: int) -> int:
    """`floats` rounded up to a multiple of UNIT."""
    return -(-floats // UNIT) * UNIT


def tile_rows(output: Shape, floats: int = TILE_FLOATS) -> int:
    """Number of output rows of a tile of about `floats` pixels; a multiple of UNIT pixels unless rows are too long."""
    if output.pixels <= floats:
        return output.height
    step = UNIT // math.gcd(UNIT, output.width)
    if step * output.width > 4 * floats:
        return 1
    most = max(step, floats // output.width // step * step)
    tiles = math.ceil(output.height / most)
    even = math.ceil(output.height / tiles / step) * step
    return min(output.height, even)


def padding_floats(shape: Shape) -> int:
    """Floats of the rows of zeros after each plane, for convolutions that read it in place."""
    return PADDING_ROWS * shape.width if not shape.flat and shape.width in (UNIT, 2 * UNIT) else 0


def layout(shape: Shape) -> Tensor:
    """The layout of a tensor of `shape`, with offset 0.

    A plane is followed by its padding rows. Since tiles write whole units, the pitch includes the last unit of the last
    tile. If the pitch were a multiple of CACHE_SET_FLOATS, one unit is added, so that planes use different cache sets.
    """
    if shape.flat:
        floats = whole_units(shape.channels)
        return Tensor(0, 1, 1, shape.channels, floats, floats, flat=True)
    tile = tile_rows(shape) * shape.width
    last = (shape.pixels - 1) // tile * tile
    pitch = whole_units(last + whole_units(shape.pixels - last)) + padding_floats(shape)
    pitch += UNIT * (pitch % CACHE_SET_FLOATS == 0)
    return Tensor(0, shape.channels, shape.height, shape.width, pitch, whole_units(shape.channels * pitch))
