"""Projected gradient descent on the ℓ∞ ball, and on the ℓ2 ball for judging.

Source: Marshall 2020, Eq. (3), with a step size of its own (the text steps by ε) and a random start. With one
step of size ε and no random start it is FGSM (Goodfellow 2015).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_edge.attacks.ball import LINF, check_norm, project, start_points, steepest
from robust_edge.parallel.rows import Rows, all_rows

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (N, K) and labels (N,) to the sum over the images of what the adversary wants large."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pgd:
    """The attack's settings.

    Attributes:
        eps: radius in pixel units on [0, 1].
        steps: gradient steps, s.
        step_size: α; None for 2.5·ε/s.
        random_start: begin anywhere in the ball instead of at the image.
        norm: `linf` or `l2`.
    """

    eps: float
    steps: int
    step_size: float | None = None
    random_start: bool = True
    norm: str = LINF

    def __post_init__(self) -> None:
        check_norm(self.norm)

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
    """Batch-norm uses its running statistics, and does not update them, while the attack looks.

    Afterwards every module is in its own mode again, which need not be that of the whole.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of Eq. (3), summed over the images."""
    return functional.cross_entropy(logits, labels, reduction="sum")


def craft(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Pgd,
    generator: torch.Generator,
    loss: Loss = cross_entropy,
    rows: Rows | None = None,
) -> Tensor:
    """Attack images for training: the last iterate.

    Args:
        model: raw pixels to logits, in whatever mode the caller wants it.
        images: (N, C, H, W) float in [0, 1].
        labels: (N,) int64.
        attack: the settings; ℓ∞.
        generator: the random start; of any device.
        loss: what the adversary raises.
        rows: which part of a shared batch the images are; None for all of it.

    Returns:
        (N, C, H, W) in [0, 1], within ε of `images`, detached.
    """
    return last_iterate(model, images, labels, attack, random_start(images, attack, generator, rows), loss)


def last_iterate(
    model: nn.Module, images: Tensor, labels: Tensor, attack: Pgd, start: Tensor, loss: Loss = cross_entropy
) -> Tensor:
    """All steps on all images, fooled or not: what transfers to other networks.

    Args and shapes as in `craft`; `start` is where the first gradient is taken.
    """
    candidate = start
    with only_input_gradients(model), evaluation_mode(model):
        for _ in range(attack.steps):
            candidate = _step(candidate, images, attack, _gradient(model, candidate, labels, loss)[1])
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
    return attack_from(model, images, labels, attack, random_start(images, attack, generator))


def attack_from(
    model: nn.Module, images: Tensor, labels: Tensor, attack: Pgd, start: Tensor, loss: Loss = cross_entropy
) -> Attacked:
    """As `attack_images`, from a start and with a loss of the caller's."""
    with only_input_gradients(model), evaluation_mode(model):
        with torch.no_grad():
            clean = model(images).argmax(1) == labels
        robust, result, candidate = clean.clone(), images.clone(), start.clone()
        for step in range(attack.steps + 1):
            rows = robust.nonzero().squeeze(1)
            if not len(rows) or attack.eps == 0:
                break
            points = candidate[rows]
            logits, gradient = _gradient(model, points, labels[rows], loss)
            result[rows] = points
            robust[rows] = logits.argmax(1) == labels[rows]
            if step < attack.steps:
                candidate[rows] = _step(points, images[rows], attack, gradient)
    return Attacked(result, robust, clean)


def attack_with_restarts(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Pgd,
    *,
    seed: int,
    positions: Sequence[int],
    restarts: int = 1,
    loss: Loss = cross_entropy,
) -> Tensor:
    """One candidate per image: the first that fooled the network over all iterates of all restarts, else the last.

    Args:
        model: raw pixels to logits; used in evaluation mode.
        images: (N, C, H, W) float in [0, 1].
        labels: (N,) int64.
        attack: the settings of one restart.
        seed: of the random starts, which depend on it, on the image's position and on nothing else.
        positions: of the images in the test split.
        restarts: how many random starts; images that are broken take no part in the next one.
        loss: what the adversary raises.
    """
    candidates, rows = images.clone(), torch.arange(len(images), device=images.device)
    for restart in range(restarts):
        if not len(rows):
            break
        chosen = [positions[row] for row in rows.tolist()]
        start = images[rows]
        if attack.random_start:
            start = start_points(start, attack.eps, attack.norm, seed, chosen, restart)
        attacked = attack_from(model, images[rows], labels[rows], attack, start, loss)
        candidates[rows] = attacked.images
        rows = rows[attacked.robust]
    return candidates


def random_start(images: Tensor, attack: Pgd, generator: torch.Generator, rows: Rows | None = None) -> Tensor:
    """Where the first gradient is taken: anywhere in the ball, or at the image itself.

    Args and shapes as in `craft`.
    """
    if not attack.random_start:
        return images.clone()
    noise = (rows or all_rows(images)).uniform(images.shape[1:], generator).to(images.device) * 2 - 1
    return project(images + attack.eps * noise, images, attack.eps, attack.norm)


def _gradient(model: nn.Module, points: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    points = points.detach().requires_grad_(True)
    logits = model(points)
    return logits.detach(), torch.autograd.grad(loss(logits, labels), points)[0]


def _step(points: Tensor, images: Tensor, attack: Pgd, gradient: Tensor) -> Tensor:
    moved = points.detach() + attack.alpha * steepest(gradient, attack.norm)  # Eq. (3)
    return project(moved, images, attack.eps, attack.norm)
