"""Exact integer arithmetic in torch whose gradient is that of the real numbers that the integers stand for.

Rounding has the gradient of the identity (straight-through), and a code that was cut to its bounds has none. Codes and
sums are integers stored as floats, which hold them exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from robust_edge_exporters.native.int8.arithmetic import LARGEST_CODE, Requantisation

EXACT_FLOAT32 = 2**24
"""Below this, float32 holds every integer, so that sums of them are exact in any order."""


class StraightThrough(torch.autograd.Function):
    """The rounded values, with the gradient of the smooth ones."""

    @staticmethod
    def forward(ctx: Any, smooth: Tensor, rounded: Tensor) -> Tensor:
        """Both have the same shape."""
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The gradient passes to the smooth values."""
        return gradients[0], None


def straight_through(smooth: Tensor, rounded: Tensor) -> Tensor:
    """`rounded`, with the gradient of `smooth`."""
    found: Tensor = StraightThrough.apply(smooth, rounded)  # type: ignore[no-untyped-call]
    return found


def sum_dtype(bound: int) -> torch.dtype:
    """The fastest type that holds all sums up to `bound` exactly."""
    return torch.float32 if bound < EXACT_FLOAT32 else torch.float64


class Requantise(nn.Module):
    """From sums to codes, as `arithmetic.requantise`, per channel or with one factor for all.

    Args:
        r: shifts, multipliers and bounds; its bias is not added.
        dims: number of axes after that of the channels; 0 where all channels share one factor.
    """

    first: Tensor
    multiplier: Tensor
    slope: Tensor

    def __init__(self, r: Requantisation, dims: int = 0) -> None:
        super().__init__()
        self.limits = (r.lowest, r.highest)
        self.down, self.offset, self.residual = r.down, r.offset, r.residual
        self.register_buffer("first", _per_channel(r.first, np.int32, dims))
        self.register_buffer("multiplier", _per_channel(r.multiplier, np.int32, dims))
        self.register_buffer("slope", _per_channel(r.significand * 2.0 ** -(r.shift + r.down), np.float32, dims))
        self.table = None if r.table is None else LookUp(r.table)

    def forward(self, sums: Tensor, residual: Tensor | None = None) -> Tensor:
        """Codes of sums, and of the codes of a residual that are added; (N, O, ...) each."""
        codes: Tensor = _Requantise.apply(sums, residual, self)  # type: ignore[no-untyped-call]
        return codes if self.table is None else self.table(codes)


class _Requantise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sums: Tensor, residual: Tensor | None, r: Requantise) -> Tensor:
        scaled = (sums.to(torch.int32) >> r.first) * r.multiplier + r.offset
        if residual is not None:
            scaled += residual.to(torch.int32) * r.residual
        scaled >>= r.down
        lowest, highest = r.limits
        ctx.save_for_backward((scaled >= lowest) & (scaled <= highest))
        ctx.slopes, ctx.dtype = (r.slope, r.residual * 2.0**-r.down), sums.dtype
        return scaled.clamp_(lowest, highest).to(torch.float32)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (inside,) = ctx.saved_tensors
        passed = gradients[0] * inside
        residual = passed * ctx.slopes[1] if ctx.needs_input_grad[1] else None
        return (passed * ctx.slopes[0]).to(ctx.dtype), residual, None


class LookUp(nn.Module):
    """table[q] of each code, with the slope between the codes next to q as gradient."""

    table: Tensor
    slopes: Tensor

    def __init__(self, table: npt.NDArray[np.uint8]) -> None:
        super().__init__()
        values = table.astype(np.float32)
        below, above = np.maximum(np.arange(len(values)) - 1, 0), np.minimum(np.arange(len(values)) + 1, LARGEST_CODE)
        self.register_buffer("table", torch.from_numpy(values))
        slopes = ((values[above] - values[below]) / (above - below)).astype(np.float32)
        self.register_buffer("slopes", torch.from_numpy(slopes))

    def forward(self, codes: Tensor) -> Tensor:
        """Codes of the same shape."""
        index = codes.detach().long()
        return straight_through(codes * self.slopes[index], self.table[index])


def _per_channel(values: npt.NDArray[Any], dtype: type[np.generic], dims: int) -> Tensor:
    return torch.from_numpy(np.asarray(values).astype(dtype).reshape(-1, *(1,) * dims))
