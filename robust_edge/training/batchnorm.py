"""Running statistics of batch-norm: frozen for some passes, or re-estimated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn


def batchnorms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Every batch-norm layer that keeps running statistics."""
    kind = nn.modules.batchnorm._BatchNorm
    return [module for module in model.modules() if isinstance(module, kind) and module.running_mean is not None]


@contextlib.contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Normalise by the statistics of the batch, as in training, without updating the running ones."""
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
        batches: (N, C, H, W) images each; consumed one at a time.
    """
    layers = batchnorms(model)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative mean
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    for layer in layers:
        layer.train()  # alone, so that dropout and the like stay off
    try:
        for images in batches:
            with torch.no_grad():  # inside the loop: drawing a batch may need gradients, for its attack
                model(images)
    finally:
        for module, mode in modes:
            module.training = mode
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
