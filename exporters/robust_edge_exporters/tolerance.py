"""How far the logits of a faithful artifact may lie from its checkpoint's: measured on the checkpoint's own arithmetic.

The checkpoint is run once exactly and once as the precision of the artifact would run it: fp32 against fp64, with every
tensor rounded to fp16, or with weights and activations rounded to 8 bits. Neither the artifact nor what its bundle says
takes part. A margin allows for another order of additions, and for ranges that come from other images.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from robust_edge_exporters.dispatch_mode import EagerDispatchMode
from robust_edge_exporters.target import Quantisation, Target
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.golden import MAX_TOLERANCE
from robust_edge_runtimes.scoring import relative_error

IMAGES = 64
MARGIN = {"fp32": 128.0, "fp16": 4.0, "int8": 10.0}
"""Files that ONNX Runtime, PyTorch and the sparse engine ran were off by at most 2.4, 0.5 and 4.7 times the error."""
ILL_CONDITIONED = 1e-3
"""Rounding alone moves the logits of a usual network by a millionth."""
LEAST = 1e-4
"""Kernels of another kind (Winograd, other orders of addition) differ by this much whatever the network."""
LEAST_ON_DEVICE = {"fp32": 1e-3, "fp16": 2e-2, "int8": 0.1}
"""The same where the device's runtime chooses its arithmetic: TF32 for fp32, its own fusions and scales in 8 bits."""
_WEIGHTED = {
    torch.ops.aten.convolution.default: (0, 1),
    torch.ops.aten.addmm.default: (1, 2),
    torch.ops.aten.mm.default: (0, 1),
    torch.ops.aten.bmm.default: (0, 1),
}
"""Operators that run in 8 bits, with the positions of the activation and of the weight among their arguments."""
_AT_EITHER_END = {torch.ops.aten.add.Tensor, torch.ops.aten.mul.Tensor, torch.ops.aten.mean.dim}

Arithmetic = Callable[[Any, tuple[Any, ...]], tuple[Any, ...]]
"""An operator of torch and its arguments to the arguments as the precision holds them."""


def logit_tolerance(
    network: nn.Module, images: np.ndarray, precision: str, target: Target, *, on_device: bool = True
) -> float:
    """The largest relative logit error of a faithful artifact.

    Args:
        network: the checkpoint, in evaluation mode on the CPU.
        images: (N, C, H, W) float32 in [0, 1]; the first IMAGES are used.
        precision: of the artifact.
        target: its row.
        on_device: the artifact runs on the target's own runtime; otherwise on the one that checks its files at export.

    Returns:
        MARGIN times the error of the checkpoint's own arithmetic, at least LEAST and at most the precision's
        MAX_TOLERANCE.
    """
    cap = MAX_TOLERANCE[precision]
    least = LEAST_ON_DEVICE[precision] if on_device and target.checked_with is not None else LEAST
    error = _error(network, torch.from_numpy(images[:IMAGES]), precision, target.int8)
    return min(cap, max(MARGIN[precision] * error, least)) if math.isfinite(error) else cap


def ill_conditioned(network: nn.Module, images: np.ndarray) -> str:
    """A clause for an error message if the network's own fp32 logits are far from its fp64 logits; otherwise ""."""
    error = _error(network, torch.from_numpy(images[:IMAGES]), "fp32", None)
    if not error > ILL_CONDITIONED:
        return ""
    return (
        f". The checkpoint is ill-conditioned: its own logits in fp32 are off by {error:.2g} (relative) from those in "
        "fp64, so that no conversion can agree with it; train it with weight decay, or start again from another one"
    )


def _error(network: nn.Module, points: Tensor, precision: str, quantisation: Quantisation | None) -> float:
    """Relative error of the logits in a precision; NaN for a network of the user's that fixes its own data type."""
    with torch.no_grad():
        here = network(points)
        try:
            if precision == "fp32":
                return relative_error(here.numpy(), copy.deepcopy(network).double()(points.double()).numpy())
            with _Rounding(_to_fp16 if precision == "fp16" else _EightBits(quantisation)):
                there = network(points)
        except (RuntimeError, NotImplementedError, TypeError, InputError):
            return math.nan
    return relative_error(there.numpy(), here.numpy())


class _Rounding(EagerDispatchMode):
    """Runs every operator on arguments that are rounded first; operators that write to an argument are left alone."""

    def __init__(self, arithmetic: Arithmetic) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._arithmetic = arithmetic

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch for every operator."""
        given = args if func._schema.is_mutable else self._arithmetic(func, args)
        return func(*given, **(kwargs or {}))


def _to_fp16(operator: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    rounded: tuple[Any, ...] = tree_map(
        lambda value: value.half().float() if isinstance(value, Tensor) and value.dtype == torch.float32 else value,
        arguments,
    )
    return rounded


class _EightBits:
    """Static quantisation: weights per output channel, activations by the range that they have on these images.

    Whatever comes before the first weighted operator normalises the pixels, which the exporter leaves in fp32, too.
    """

    def __init__(self, quantisation: Quantisation | None) -> None:
        narrow = quantisation is not None and quantisation.reduce_range
        self._weight_levels = 63 if narrow else 127
        self._symmetric = quantisation is not None and quantisation.symmetric
        self._started = False

    def __call__(self, operator: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Round the arguments of the operators that run in 8 bits."""
        changed = list(arguments)
        if operator in _WEIGHTED:
            self._started = True
            activation, weight = _WEIGHTED[operator]
            changed[activation] = self._activation(changed[activation])
            channel = 0 if operator is torch.ops.aten.convolution.default else changed[weight].ndim - 1
            changed[weight] = self._weight(changed[weight], channel)
        elif self._started and operator in _AT_EITHER_END:
            changed = [
                self._activation(value) if isinstance(value, Tensor) and value.is_floating_point() else value
                for value in changed
            ]
        return tuple(changed)

    def _activation(self, values: Tensor) -> Tensor:
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        step = max(-low, high) / 127 if self._symmetric else (high - low) / 255
        return values if step == 0 else torch.round(values / step) * step

    def _weight(self, values: Tensor, channel: int) -> Tensor:
        others = [axis for axis in range(values.ndim) if axis != channel]
        step = values.abs().amax(others, keepdim=True) / self._weight_levels
        return torch.where(step > 0, torch.round(values / step.clamp(min=1e-30)) * step, values)
