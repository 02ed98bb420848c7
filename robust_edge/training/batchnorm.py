"""Freeze, follow or re-estimate the running statistics of batch norm."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from robust_edge_exporters.evaluation_mode import evaluation_mode

CONSTANT = 1e-3
"""A channel whose variance is at most this fraction of the layer's ε computes a constant, up to rounding."""


def batchnorms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Every batch-norm layer that keeps running statistics."""
    kind = nn.modules.batchnorm._BatchNorm
    return [module for module in model.modules() if isinstance(module, kind) and module.running_mean is not None]


@contextlib.contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Use the statistics of the batch, as in training, without updating the running statistics."""
    layers = [layer for layer in batchnorms(model) if layer.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def reestimate(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics by the mean of the batches' statistics.

    Args:
        model: only its running statistics change; each module's mode is restored.
        batches: batches of (N, C, H, W) images; only one is in memory at a time.
    """
    layers = batchnorms(model)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative mean
    try:
        with evaluation_mode(model):
            for layer in layers:
                layer.train()  # only the batch-norm layers are in training mode, so that dropout stays off
            for images in batches:
                with torch.no_grad():  # not around the loop: the iterator may attack the batch, which needs gradients
                    model(images)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def follow_batch(model: nn.Module, images: Tensor) -> None:
    """Move the running statistics towards those of a batch, as a forward pass in training mode does.

    The variance of a channel that is constant in this batch stays as it is, for the reason that `quieten` has.

    Args:
        model: only the running statistics of its batch norms that are in training mode change, but for
            `frozen_statistics`.
        images: (N, C, H, W).
    """
    layers = [layer for layer in batchnorms(model) if layer.training and layer.track_running_stats]
    if not layers:
        return
    before = [[tensor.clone() for tensor in _statistics(layer)] for layer in layers]
    momenta = [layer.momentum for layer in layers]
    try:
        with evaluation_mode(model), torch.no_grad():
            for layer in layers:
                layer.train()
                layer.momentum = 1.0  # the statistics of the batch alone
            model(images)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
    for layer, (mean, variance) in zip(layers, before, strict=True):
        assert layer.num_batches_tracked is not None
        share = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
        of_batch = _statistics(layer)
        target = torch.where(_is_constant(layer), variance, of_batch[1])
        of_batch[0].copy_(mean.lerp(of_batch[0], share))
        of_batch[1].copy_(variance.lerp(target, share))


def quieten(layers: Iterable[nn.modules.batchnorm._BatchNorm]) -> None:
    """Give constant channels, such as those of a filter without weights, the variance 1.

    They compute what they computed before. Running statistics with a variance of zero would multiply the smallest
    change of the constant by 1/√ε, some 300, and training with them diverges.
    """
    for layer in layers:
        _, variance = _statistics(layer)
        variance[_is_constant(layer)] = 1.0


def _is_constant(layer: nn.modules.batchnorm._BatchNorm) -> Tensor:
    """Which channels have no variance in the running statistics."""
    found: Tensor = _statistics(layer)[1] <= CONSTANT * layer.eps
    return found


def _statistics(layer: nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor]:
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return layer.running_mean, layer.running_var
