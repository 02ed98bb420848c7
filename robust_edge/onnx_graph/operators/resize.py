"""Resize: interpolation along each axis by a matrix from old to new positions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from robust_edge.onnx_graph.operators.node import Inputs, Node, ints, optional_input, refuse

ROUNDING: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


def resize(node: Node, inputs: Inputs) -> Tensor:
    """By scales or to sizes, nearest, linear or cubic, in each of ONNX's systems of coordinates; size 0 stays."""
    x, first = inputs[0], 1 if node.opset < 11 else 2
    scales, sizes = optional_input(inputs, first), ints(node, inputs, "", 3)
    wanted = [float(value) for value in (() if scales is None else scales.tolist())]
    wanted = wanted or list(node.get("scales", None) or [])
    axes = ints(node, inputs, "axes", None) or list(range(x.ndim))
    refuse(node, antialias=0)  # ONNX Runtime's filter is not torch's
    if sizes and node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise ValueError("keep_aspect_ratio_policy is not covered")
    for position, axis in enumerate(axes):
        size = x.shape[axis]
        out = sizes[position] or size if sizes else math.floor(size * wanted[position])
        scale = out / size if sizes else wanted[position]
        if out != size or scale != 1:
            x = _along(node, x, axis, out, scale)
    return x  # type: ignore[no-any-return]


def _along(node: Node, x: Tensor, axis: int, out: int, scale: float) -> Tensor:
    places, size = _coordinates(node, x.shape[axis], out, scale), x.shape[axis]
    if node.get("mode", "nearest") == "nearest":
        round_to = ROUNDING[node.get("nearest_mode", "round_prefer_floor" if node.opset >= 11 else "floor")]
        return x.index_select(axis, round_to(places).clamp(0, size - 1).long().to(x.device))
    matrix = _matrix(node, places, size).to(x.device)
    return (x.movedim(axis, -1) @ matrix.T).movedim(-1, axis)


def _coordinates(node: Node, size: int, out: int, scale: float) -> Tensor:
    """(out,) float32: where each new position lies among the old ones."""
    mode = node.get("coordinate_transformation_mode", "half_pixel" if node.opset >= 11 else "asymmetric")
    new = torch.arange(out, dtype=torch.float32)
    if mode == "asymmetric":
        return new / scale
    if mode == "align_corners":
        return new * ((size - 1) / (out - 1)) if out > 1 else new
    if mode == "pytorch_half_pixel" and out == 1:
        return new * 0
    if mode == "half_pixel_symmetric":
        middle = size / 2
        return middle * (1 - out / (scale * size)) + (new + 0.5) / scale - 0.5
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (new + 0.5) / scale - 0.5
    raise ValueError(f"coordinate_transformation_mode {mode!r} is not covered")


def _matrix(node: Node, places: Tensor, size: int) -> Tensor:
    """(out, size): the weight of each old position at each new one."""
    mode = node.get("mode", "nearest")
    kernel = {"linear": _triangle, "cubic": _cubic(node.get("cubic_coeff_a", -0.75))}.get(mode)
    if kernel is None:
        raise ValueError(f"mode {mode!r} is not covered")
    old = torch.arange(-3, size + 3, dtype=torch.float32)
    weights = kernel(old - places[:, None])
    if node.get("exclude_outside", 0):
        weights = weights * ((old >= 0) & (old < size))
    weights = weights / weights.sum(1, keepdim=True)
    folded = torch.zeros(len(places), size)  # what lies outside has the value of the edge
    return folded.index_add_(1, old.clamp(0, size - 1).long(), weights)


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp(min=0)


def _cubic(a: float) -> Callable[[Tensor], Tensor]:
    """Source: Keys 1981, "Cubic Convolution Interpolation for Digital Image Processing", Eq. (15)."""

    def kernel(distance: Tensor) -> Tensor:
        t = distance.abs()
        near = (a + 2) * t**3 - (a + 3) * t**2 + 1
        far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
        return torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t)))

    return kernel
