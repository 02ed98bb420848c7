"""A torch network that provides the gradients for an attack on an artifact: its checkpoint or its twin."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from robust_edge.attacks.input_gradients import only_input_gradients
from robust_edge.evaluation.batch_size import batch_size
from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_runtimes.core.batches import batches_of, in_batches


class TorchOracle:
    """A torch network behind the GradientOracle protocol of the runtimes package.

    Args:
        model: raw pixels to logits; used in evaluation mode, on its own device.
        batch: number of images per forward pass; None for what `batch_size` says of their shape.
        temperature: the logits are divided by it before the loss, and only there.
    """

    def __init__(self, model: nn.Module, *, batch: int | None = None, temperature: float = 1.0) -> None:
        self._model = model
        self._batch = batch
        self._temperature = temperature
        tensors = itertools.chain(model.parameters(), model.buffers())
        self._device = next((tensor.device for tensor in tensors), torch.device("cpu"))

    def logits_and_gradient(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits (N, K), and the cross-entropy's gradient (N, C, H, W) with respect to `images`."""
        parts = [self._pass(images[part], labels[part]) for part in batches_of(len(images), self._size(images))]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, K) without the gradient, which takes a third of the time."""
        with torch.no_grad(), evaluation_mode(self._model), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that CSR is in beta whenever a twin multiplies by it
            return in_batches(
                lambda part: self._model(torch.from_numpy(part).to(self._device)).cpu().numpy(),
                images,
                self._size(images),
            )

    def _size(self, images: np.ndarray) -> int:
        return self._batch or batch_size(images.shape[1:], self._device)

    def _pass(self, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points = torch.from_numpy(images).to(self._device).requires_grad_(True)
        truth = torch.from_numpy(labels).to(self._device)
        with only_input_gradients(self._model), evaluation_mode(self._model), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the same
            logits = self._model(points)
            loss = functional.cross_entropy(logits / self._temperature, truth, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, points)
        return logits.detach().cpu().numpy(), gradient.cpu().numpy()
