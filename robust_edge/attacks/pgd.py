"""Projected gradient descent on the ℓ∞ ball.

Source: Marshall 2020, Eq. (3), with a step size of its own (the text steps by ε) and a random start.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pgd:
    """The attack's settings.

    Attributes:
        eps: radius in pixel units on [0, 1].
        steps: gradient steps, s.
        step_size: α; None for 2.5·ε/s.
        random_start: begin anywhere in the ball instead of at the image.
    """

    eps: float
    steps: int
    step_size: float | None = None
    random_start: bool = True

    @property
    def alpha(self) -> float:
        """The step size in use."""
        return 2.5 * self.eps / self.steps if self.step_size is None else self.step_size


@contextlib.contextmanager
def only_input_gradients(model: nn.Module) -> Iterator[None]:
    """Parameter gradients off, so that a step of the attack costs two forward passes and not three."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Batch-norm uses its running statistics, and does not update them, while the attack looks."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def craft(model: nn.Module, images: Tensor, labels: Tensor, attack: Pgd, generator: torch.Generator) -> Tensor:
    """Attack images for training: the last iterate.

    Args:
        model: raw pixels to logits, in whatever mode the caller wants it.
        images: (N, C, H, W) float in [0, 1].
        labels: (N,) int64.
        attack: the settings.
        generator: of the CPU; the random start.

    Returns:
        (N, C, H, W) in [0, 1], within ε of `images`, detached.
    """
    low, high = (images - attack.eps).clamp_min(0), (images + attack.eps).clamp_max(1)
    candidate = _start(images, low, high, attack, generator)
    with only_input_gradients(model), evaluation_mode(model):
        for _ in range(attack.steps):
            candidate = _step(candidate, low, high, attack, _gradient(model, candidate, labels)[1])
    return candidate


@dataclasses.dataclass(frozen=True, eq=False)
class Attacked:
    """What an evaluation attack did.

    Attributes:
        images: (N, C, H, W), the first candidate that fooled the network, else the last one.
        robust: (N,) bool, right on the clean image and on every candidate.
        clean: (N,) bool, right on the clean image.
    """

    images: Tensor
    robust: Tensor
    clean: Tensor


def attack_images(
    model: nn.Module, images: Tensor, labels: Tensor, attack: Pgd, generator: torch.Generator
) -> Attacked:
    """Attack for judging: every iterate counts, and images that are already broken are left alone.

    Args and shapes as in `craft`. The model is used in evaluation mode.
    """
    low, high = (images - attack.eps).clamp_min(0), (images + attack.eps).clamp_max(1)
    with only_input_gradients(model), evaluation_mode(model):
        with torch.no_grad():
            clean = model(images).argmax(1) == labels
        robust, result = clean.clone(), images.clone()
        candidate = _start(images, low, high, attack, generator)
        for step in range(attack.steps + 1):
            rows = robust.nonzero().squeeze(1)
            if not len(rows) or attack.eps == 0:
                break
            points = candidate[rows]
            logits, gradient = _gradient(model, points, labels[rows])
            result[rows] = points
            robust[rows] = logits.argmax(1) == labels[rows]
            if step < attack.steps:
                candidate[rows] = _step(points, low[rows], high[rows], attack, gradient)
    return Attacked(result, robust, clean)


def _start(images: Tensor, low: Tensor, high: Tensor, attack: Pgd, generator: torch.Generator) -> Tensor:
    if not attack.random_start:
        return images.clone()
    noise = torch.rand(images.shape, generator=generator).to(images.device) * 2 - 1
    return torch.minimum(torch.maximum(images + attack.eps * noise, low), high)


def _gradient(model: nn.Module, points: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    points = points.detach().requires_grad_(True)
    logits = model(points)
    loss = functional.cross_entropy(logits, labels, reduction="sum")
    return logits.detach(), torch.autograd.grad(loss, points)[0]


def _step(points: Tensor, low: Tensor, high: Tensor, attack: Pgd, gradient: Tensor) -> Tensor:
    moved = points.detach() + attack.alpha * gradient.sign()  # Eq. (3)
    return torch.minimum(torch.maximum(moved, low), high)
