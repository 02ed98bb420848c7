"""Adversarial weight perturbation (AWP): the gradient is taken at perturbed weights that raise the loss.

Source: Wu 2020, Eq. (8)-(11), one ascent step per layer, v = γ‖w‖ g/‖g‖, on the prunable weights. Deviations: the
ascent gradient is that of the whole loss, on the network itself and not on a copy; running statistics are updated at
the unperturbed weights; under a mask pruned weights are not perturbed. Of a parametrised weight (weight norm, spectral
norm) the effective tensor is perturbed.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from robust_edge.pruning.parametrised import perturbable
from robust_edge.training.batchnorm import frozen_statistics
from robust_edge.training.losses import BatchLoss
from robust_edge.training.synchrony import WHOLE_BATCH, RankShare


def perturbation(
    weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], gamma: float, masks: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """γ‖w‖ g/‖g‖ for each layer; zero where the mask is zero, and for layers whose gradient is zero."""
    steps = {}
    for name, weight in weights.items():
        gradient = gradients[name] if masks is None else gradients[name] * masks[name]
        length = gradient.norm()
        scale = torch.where(length > 0, gamma * weight.detach().norm() / length, torch.zeros_like(length))
        steps[name] = gradient * scale
    return steps


@contextlib.contextmanager
def perturbed(weights: Mapping[str, nn.Parameter], steps: Mapping[str, Tensor]) -> Iterator[None]:
    """Add `steps` to the weights inside the `with` block; afterwards the exact old values are restored."""
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    with torch.no_grad():
        for name, weight in weights.items():
            weight.add_(steps[name])
    try:
        yield
    finally:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(before[name])


def backward(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    loss_of: Callable[[], BatchLoss],
    *,
    gamma: float,
    abort: float,
    masks: Mapping[str, Tensor] | None,
    share: RankShare = WHOLE_BATCH,
) -> tuple[BatchLoss, bool]:
    """Compute the gradient at the perturbed weights and store it in `.grad`; the weights are unchanged afterwards.

    Args:
        model: in training mode; its running statistics are updated once, at the unperturbed weights.
        weights: the weights to perturb, by name: parameters, and effective tensors of parametrised ones.
        loss_of: computes the loss of the batch in a forward pass.
        gamma: norm of the perturbation relative to that of the weights.
        abort: largest allowed ratio of the perturbed loss to the unperturbed loss, or to 1 if that is larger.
        masks: the masks of the masked phase; None before it.
        share: this rank's part of the batch; gradient and losses are averaged over the whole batch.

    Returns:
        The unperturbed loss, and whether the perturbed loss was finite and within `abort`. If it was not, `.grad` has
        the gradient at the unperturbed weights.
    """
    with perturbable(model, weights) as points:
        return _backward(model, weights, points, loss_of, gamma, abort, masks, share)


def _backward(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    points: Mapping[str, nn.Parameter],
    loss_of: Callable[[], BatchLoss],
    gamma: float,
    abort: float,
    masks: Mapping[str, Tensor] | None,
    share: RankShare,
) -> tuple[BatchLoss, bool]:
    """As `backward`; `points` are what `perturbable` gives for the weights."""
    plain = loss_of()
    plain.total.backward()
    share.average(model)
    gradients = {name: point.grad for name, point in points.items() if point.grad is not None}
    kept = {parameter: parameter.grad for parameter in model.parameters()}
    model.zero_grad(set_to_none=True)
    steps = perturbation({name: weights[name] for name in gradients}, gradients, gamma, masks)
    with perturbed({name: points[name] for name in gradients}, steps), frozen_statistics(model):
        worse = loss_of()
        losses = torch.stack([loss.total.detach() for loss in (worse, plain)]).tolist()  # one wait for a GPU
        value, reference = (share.mean(loss) for loss in losses)
        held = math.isfinite(value) and value <= abort * max(reference, 1.0)
        if held:
            worse.total.backward()
    if not held:
        for parameter, gradient in kept.items():
            parameter.grad = gradient
    return plain, held
