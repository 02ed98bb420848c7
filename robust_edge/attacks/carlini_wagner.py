"""Carlini and Wagner's margin loss under a bound on the perturbation.

Source: Carlini and Wagner 2017, loss f6 with confidence κ, raised by projected gradient steps inside the ball as in
Madry et al. 2018. Deviation: the bound is the ball itself and not a penalty, so that ε means the same as in every
other attack here.
"""

from __future__ import annotations

from torch import Tensor

from robust_edge.attacks.pgd import Loss

CONFIDENCE = 50.0


def margin_loss(confidence: float = CONFIDENCE) -> Loss:
    """−Σ max(Z_y − max_{k≠y} Z_k, −κ): stops pushing an image once another class leads by κ."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return -margins(logits, labels).clamp_min(-confidence).sum()

    return loss


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """(N,) how far the true class leads the best other one; below 0 the image is wrong."""
    true = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], -float("inf")).amax(1)
    return true - others
