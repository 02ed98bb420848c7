"""The checkpoint as the source of gradients for an artifact that has none."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from robust_edge.attacks.pgd import evaluation_mode, only_input_gradients


class CheckpointOracle:
    """A torch network behind the GradientOracle protocol of the runtimes package.

    Args:
        model: raw pixels to logits; used in evaluation mode, on its own device.
        batch: images per pass.
    """

    def __init__(self, model: nn.Module, *, batch: int = 250) -> None:
        self._model = model
        self._batch = batch
        self._device = next(model.parameters()).device

    def logits_and_gradient(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, K), and the cross-entropy's gradient (N, C, H, W) with respect to `images`."""
        parts = [self._pass(images[i : i + self._batch], labels[i : i + self._batch]) for i in self._starts(images)]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _starts(self, images: np.ndarray) -> range:
        return range(0, len(images), self._batch)

    def _pass(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points = torch.from_numpy(images).to(self._device).requires_grad_(True)
        truth = torch.from_numpy(labels).to(self._device)
        with only_input_gradients(self._model), evaluation_mode(self._model):
            logits = self._model(points)
            loss = functional.cross_entropy(logits, truth, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, points)
        return logits.detach().cpu().numpy(), gradient.cpu().numpy()
