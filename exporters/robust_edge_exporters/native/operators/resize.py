"""Resize: nearest-neighbour as a view, bilinear as an operator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import GraphBuilder, attributes, float32, names, unsupported
from robust_edge_exporters.native.geometry import Shape, Tensor

Positions = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Resize(ir.Op):
    """Bilinear interpolation at the positions `rows` (P,) and `columns` (Q,), in pixels of the input."""

    rows: Positions
    columns: Positions

    def calls(self, inputs: tuple[Tensor, ...], output: Tensor) -> tuple[ir.Call, ...]:
        """One call, with the pixels before and after each position, and its distance from the first of them."""
        fields: dict[str, object] = {"in": inputs[0], "out": output, "act": self.act}
        for name, positions, size in (
            ("rows", self.rows, inputs[0].height),
            ("columns", self.columns, inputs[0].width),
        ):
            first = np.clip(np.floor(positions), 0, size - 1).astype(int)
            fields[f"{name}_before"] = tuple(first.tolist())
            fields[f"{name}_after"] = tuple(np.minimum(first + 1, size - 1).tolist())
            fields[f"{name}_part"] = float32(np.clip(positions - first, 0, 1))
        return (ir.Call("resize", "resize", fields),)


def resize(builder: GraphBuilder, node: Any) -> None:
    """Import Resize of height and width."""
    values, dims = attributes(node), builder.dims(node, 0)
    policy, mode = values.get("keep_aspect_ratio_policy", "stretch"), values.get("mode", "nearest")
    if values.get("antialias", 0) or policy != "stretch" or mode not in ("nearest", "linear"):
        raise unsupported(
            node, f"mode {mode}, antialias {values.get('antialias', 0)}, policy {policy}: only nearest and linear"
        )
    sizes, scales = sizes_and_scales(builder, node)
    if (sizes[:2], scales[:2]) != (list(dims[:2]), [1.0, 1.0]) or len(dims) not in (3, 4):
        raise unsupported(node, f"from {dims} to {tuple(sizes)}: only height and width of (N, C, H, W)")
    positions = [
        np.clip(coordinates(node, size, target, scale), 0, size - 1)
        for size, target, scale in zip(dims[2:], sizes[2:], scales[2:], strict=True)
    ]
    if mode == "nearest":
        view = builder.view(node, 0)
        index = view.index
        for axis, at in enumerate(positions, 2):
            index = index.take(nearest(node, at), axis)
        builder.add_view(node.output[0], replace(view, index=index))
        return
    source = builder.tensor(node, 0)
    rows, columns = [np.zeros(1), *positions][-2:]
    shape = Shape(dims[1], len(rows), len(columns))
    builder.append(Resize(*names(node, source), rows=rows, columns=columns), shape, builder.row_order(node, shape))


def sizes_and_scales(builder: GraphBuilder, node: Any) -> tuple[list[int], list[float]]:
    """Sizes of the output and scales of all axes; one of the two is given."""
    dims = builder.dims(node, 0)
    axes = [axis % len(dims) for axis in attributes(node).get("axes", range(len(dims)))]
    scales_at = 1 if len(node.input) == 2 else 2  # opset 10 has no region of interest
    scales, given = builder.constant(node, scales_at), builder.integers(node, 3, "sizes")
    sizes, factors = list(dims), [1.0] * len(dims)
    for k, axis in enumerate(axes):
        if given:
            sizes[axis], factors[axis] = given[k], given[k] / dims[axis]
        elif scales is not None and scales.size:
            sizes[axis], factors[axis] = int(np.floor(dims[axis] * scales[k])), float(scales[k])
        else:
            raise unsupported(node, "without scales or sizes")
    return sizes, factors


def coordinates(node: Any, size: int, target: int, scale: float) -> Positions:
    """The position in the input of each output pixel along one axis, by coordinate_transformation_mode."""
    at, mode = np.arange(target, dtype=np.float64), attributes(node).get("coordinate_transformation_mode", "half_pixel")
    if mode == "pytorch_half_pixel" and target == 1:
        return np.zeros(1)
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (at + 0.5) / scale - 0.5
    if mode == "align_corners":
        return at * ((size - 1) / max(1, target - 1))
    if mode == "asymmetric":
        return at / scale
    raise unsupported(node, f"coordinate_transformation_mode {mode}")


def nearest(node: Any, at: Positions) -> npt.NDArray[np.int64]:
    """The pixel next to each position, by nearest_mode."""
    rounding = {
        "round_prefer_floor": np.ceil(at - 0.5),
        "round_prefer_ceil": np.floor(at + 0.5),
        "floor": np.floor(at),
        "ceil": np.ceil(at),
    }
    return rounding[attributes(node).get("nearest_mode", "round_prefer_floor")].astype(np.int64)


ONNX = {"Resize": resize}
