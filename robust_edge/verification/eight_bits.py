"""A network that rounds as 8-bit arithmetic does: what can be expected of an honest artifact in 8 bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from robust_edge.evaluation.oracle import TorchOracle
from robust_edge_runtimes.scoring import Score

LEVELS = 256


def score_in_8_bits(network: nn.Module) -> Score:
    """The logits of a network, as a function of images, where the result of every operation is rounded to 8 bits."""
    oracle = TorchOracle(network)

    def score(images: np.ndarray) -> np.ndarray:
        with _Rounded():  # type: ignore[no-untyped-call]
            return oracle.logits(images)

    return score


class _Rounded(TorchDispatchMode):
    """Rounds results to multiples of a step, which is a power of two so that it is equal for similar images."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        return _rounded(result) if isinstance(result, Tensor) and result.dtype == torch.float32 else result


def _rounded(values: Tensor) -> Tensor:
    if values.dim() < 2 or not values.numel():  # no activations
        return values
    span = float(values.max().clamp(min=0) - values.min().clamp(max=0))
    if not 0 < span < math.inf:
        return values
    step = 2.0 ** round(math.log2(span)) / LEVELS
    return torch.round(values / step) * step
