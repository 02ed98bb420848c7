"""Projected gradient descent on the ℓ∞ ball, and on the ℓ2 ball for judging.

Source: Marshall 2020, Eq. (3), with a step size of its own (the text steps by ε) and a random start.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from robust_edge.attacks.attack import Attack
from robust_edge.attacks.ball import project, start_points, steepest
from robust_edge.attacks.logits import is_right
from robust_edge.attacks.modes import evaluation_mode, only_input_gradients
from robust_edge.parallel.rows import Rows, all_rows
from robust_edge_runtimes.attacks.threat import Threat, step_size
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.manifest import AttackSpec

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (N, K) and labels (N,) to the loss that the attack raises, summed over the images."""


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of Eq. (3), summed over the images."""
    return functional.cross_entropy(logits, labels, reduction="sum")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pgd(Attack):
    """The attack.

    Attributes:
        steps: gradient steps from every start, s.
        restarts: random starts; images that are broken take no part in the next one. With one start PGD-50 leaves up
            to 2.5 points more than APGD on a benign network.
        step_size: α; None for 2.5·ε/s.
        random_start: begin anywhere in the ball instead of at the image.
        last: take all steps on all images and keep the last iterate of one start, which is what transfers to other
            networks; otherwise the first iterate that fools the network.
    """

    steps: int = 50
    restarts: int = 3
    step_size: float | None = None
    random_start: bool = True
    last: bool = False

    few_steps: ClassVar[int] = 10
    short: ClassVar[str] = "PGD"

    def __post_init__(self) -> None:
        for name in ("steps", "restarts"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be at least 1, it is {getattr(self, name)}")

    @property
    def title(self) -> str:
        """As `PGD-50×3`."""
        return f"{self.short}-{self.steps}" + (f"×{self.restarts}" if self.restarts > 1 else "")

    def alpha(self, threat: Threat) -> float:
        """The step size in use."""
        return step_size(threat.eps, self.steps) if self.step_size is None else self.step_size

    def spec(self, threat: Threat, seed: int) -> AttackSpec:
        """The record of the attack in a bundle."""
        return AttackSpec("pgd", threat.eps, self.steps, self.alpha(threat), seed)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What the attack raises, summed over the images."""
        return cross_entropy(logits, labels)

    def perturb(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        threat: Threat,
        *,
        seed: int,
        positions: Sequence[int],
    ) -> Tensor:
        """The first iterate that fooled the network over all restarts, else the last one. Args as of `Attack.perturb`.

        The random starts depend on the seed, on the image's position and on nothing else.
        """
        candidates, rows = images.clone(), torch.arange(len(images), device=images.device)
        for restart in range(self.restarts):
            if not len(rows):
                break
            start, truth = images[rows], labels[rows]
            if self.random_start:
                places = [positions[row] for row in rows.tolist()]
                start = start_points(start, threat, seed, places, restart)
            if self.last:
                return last_iterate(model, images, labels, self, threat, start, self.loss)
            attacked = attack_from(model, images[rows], truth, self, threat, start, self.loss)
            candidates[rows] = attacked.images
            rows = rows[attacked.robust]
        return candidates

    def for_transfer(self) -> Pgd:
        """The last iterate of one start."""
        return dataclasses.replace(self, restarts=1, last=True)


def craft(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Pgd,
    threat: Threat,
    generator: torch.Generator,
    loss: Loss = cross_entropy,
    rows: Rows | None = None,
) -> Tensor:
    """Attack images for training: the last iterate.

    Args:
        model: raw pixels to logits, in whatever mode the caller wants it.
        images: (N, C, H, W) float in [0, 1].
        labels: (N,) int64.
        attack: the settings, of which one start is used.
        threat: the ball.
        generator: the random start; of any device.
        loss: what the attack raises.
        rows: which part of a shared batch the images are; None for all of it.

    Returns:
        (N, C, H, W) in [0, 1], within ε of `images`, detached.
    """
    start = random_start(images, attack, threat, generator, rows)
    return last_iterate(model, images, labels, attack, threat, start, loss)


def last_iterate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Pgd,
    threat: Threat,
    start: Tensor,
    loss: Loss = cross_entropy,
) -> Tensor:
    """All steps on all images, fooled or not: what transfers to other networks.

    Args and shapes as in `craft`; `start` is where the first gradient is taken.
    """
    candidate = start
    with only_input_gradients(model), evaluation_mode(model):
        for _ in range(attack.steps):
            candidate = _step(candidate, images, attack, threat, _gradient(model, candidate, labels, loss)[1])
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
    model: nn.Module, images: Tensor, labels: Tensor, attack: Pgd, threat: Threat, generator: torch.Generator
) -> Attacked:
    """Attack for judging: every iterate counts, and images that are already broken are left alone.

    Args and shapes as in `craft`. The model is used in evaluation mode.
    """
    return attack_from(model, images, labels, attack, threat, random_start(images, attack, threat, generator))


def attack_from(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Pgd,
    threat: Threat,
    start: Tensor,
    loss: Loss = cross_entropy,
) -> Attacked:
    """As `attack_images`, from a start and with a loss of the caller's."""
    with only_input_gradients(model), evaluation_mode(model):
        with torch.no_grad():
            clean = is_right(model(images), labels)
        robust, result, candidate = clean.clone(), images.clone(), start.clone()
        for step in range(attack.steps + 1):
            rows = robust.nonzero().squeeze(1)
            if not len(rows) or threat.eps == 0:
                break
            points = candidate[rows]
            logits, gradient = _gradient(model, points, labels[rows], loss)
            result[rows] = points
            robust[rows] = is_right(logits, labels[rows])
            if step < attack.steps:
                candidate[rows] = _step(points, images[rows], attack, threat, gradient)
    return Attacked(result, robust, clean)


def random_start(
    images: Tensor, attack: Pgd, threat: Threat, generator: torch.Generator, rows: Rows | None = None
) -> Tensor:
    """Where the first gradient is taken: anywhere in the ball, or at the image itself.

    Args and shapes as in `craft`.
    """
    if not attack.random_start:
        return images.clone()
    noise = (rows or all_rows(images)).uniform(images.shape[1:], generator).to(images.device) * 2 - 1
    return project(images + threat.eps * noise, images, threat)


def _gradient(model: nn.Module, points: Tensor, labels: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    points = points.detach().requires_grad_(True)
    logits = model(points)
    return logits.detach(), torch.autograd.grad(loss(logits, labels), points)[0]


def _step(points: Tensor, images: Tensor, attack: Pgd, threat: Threat, gradient: Tensor) -> Tensor:
    moved = points.detach() + attack.alpha(threat) * steepest(gradient, threat.norm)  # Eq. (3)
    return project(moved, images, threat)
