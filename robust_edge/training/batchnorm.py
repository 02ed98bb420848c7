"""Freeze or re-estimate the running statistics of batch norm."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from robust_edge_exporters.evaluation_mode import evaluation_mode


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
