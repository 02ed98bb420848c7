"""Adaptive pools to sizes that do not divide the image's, as ONNX can express them.

ONNX has no adaptive pools, and torch's exporters write only those whose windows are all of one size (the newer one also
means of other windows, as a gather of single pixels). The size of the image is fixed when a network is exported, so
that any adaptive pool is one of windows of one size, or a pool of the rows followed by one of the columns, each of
slices that are known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Reduce = Callable[[Tensor, int], Tensor]


def _mean(x: Tensor, axis: int) -> Tensor:
    return x.mean(axis, keepdim=True)


def _largest(x: Tensor, axis: int) -> Tensor:
    return x.amax(axis, keepdim=True)


POOLS: dict[Any, tuple[int, Any, Reduce]] = {
    functional.adaptive_avg_pool1d: (1, functional.avg_pool1d, _mean),
    functional.adaptive_avg_pool2d: (2, functional.avg_pool2d, _mean),
    functional.adaptive_avg_pool3d: (3, functional.avg_pool3d, _mean),
    functional.adaptive_max_pool1d: (1, functional.max_pool1d, _largest),
    functional.adaptive_max_pool2d: (2, functional.max_pool2d, _largest),
    functional.adaptive_max_pool3d: (3, functional.max_pool3d, _largest),
}
"""By function of torch: number of pooled axes, pool with windows of one size, and reduction of one axis."""


class PlainPools(TorchFunctionMode):
    """While it is active, adaptive pools to more than one value are computed by other functions of torch."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute an adaptive pool by other functions; call every other function as it is."""
        given = kwargs or {}
        if function not in POOLS or given.get("return_indices"):
            return function(*args, **given)
        x = args[0] if args else given["input"]
        axes, pool, reduce = POOLS[function]
        wanted = _sizes(x, args[1] if len(args) > 1 else given["output_size"], axes)
        sizes = [int(size) for size in x.shape[-axes:]]
        if all(out == 1 for out in wanted):
            return function(*args, **given)
        if any(size % out for size, out in zip(sizes, wanted, strict=True)):
            return _pooled(x, wanted, reduce)
        window = [size // out for size, out in zip(sizes, wanted, strict=True)]
        return pool(x, window, window)


def _sizes(x: Tensor, output_size: int | Sequence[int | None], axes: int) -> list[int]:
    """The size of every pooled axis; None leaves one as it is."""
    given = [output_size] * axes if isinstance(output_size, int) else list(output_size)
    return [int(size if out is None else out) for size, out in zip(x.shape[-axes:], given, strict=True)]


def _pooled(x: Tensor, wanted: Sequence[int], reduce: Reduce) -> Tensor:
    for axis, out in enumerate(wanted, x.ndim - len(wanted)):
        size = int(x.shape[axis])
        windows = ((place * size // out, -(-(place + 1) * size // out)) for place in range(out))
        x = torch.cat([reduce(x.narrow(axis, first, last - first), axis) for first, last in windows], axis)
    return x
