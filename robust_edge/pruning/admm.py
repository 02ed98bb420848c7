"""The alternating direction method of multipliers (ADMM) with explicit state.

Source: Marshall 2020, Eq. (6)-(9), with the unscaled dual u. θ lives in the model; θ' and u live here:

    θ' := Π_S(θ + u/ρ)                               Eq. (7)
    θ  := SGD on  loss + <u, θ-θ'> + ρ/2 ‖θ-θ'‖²     Eq. (8)
    u  := u + ρ (θ - θ')                             Eq. (9)

Memory: two copies of the prunable weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from robust_edge.pruning.schemes.scheme import Projection

Weights = Mapping[str, Tensor]


@dataclasses.dataclass(frozen=True)
class AdmmState:
    """The state of ADMM beside the weights: θ', u and ρ; all tensors are detached.

    Attributes:
        target: θ', the projection onto the sparsity set.
        dual: the dual variable u.
        rho: the penalty ρ for the next gradients.
        dual_residual: ρ‖θ'_t − θ'_{t−1}‖ / ‖θ'_t‖ of the last update.
    """

    target: dict[str, Tensor]
    dual: dict[str, Tensor]
    rho: float
    dual_residual: float


@dataclasses.dataclass(frozen=True)
class Residuals:
    """The relative primal and dual residual; both converge to 0.

    Attributes:
        primal: ‖θ − θ'‖ / ‖θ‖.
        dual: ρ‖θ'_t − θ'_{t−1}‖ / ‖θ'_t‖.
    """

    primal: float
    dual: float


def init(weights: Weights, project: Projection, keep: float, rho: float) -> AdmmState:
    """Start at the projection of the current weights, with a zero dual."""
    dual = {name: torch.zeros_like(weight, requires_grad=False) for name, weight in weights.items()}
    return AdmmState(project(_detached(weights), keep), dual, rho, 0.0)


def step(
    state: AdmmState,
    weights: Weights,
    project: Projection,
    keep: float,
    *,
    rho_growth: float = 1.0,
    rho_max: float = float("inf"),
) -> AdmmState:
    """Update u, then θ', after the optimiser has moved θ.

    Algorithm 1 updates θ', θ, u in turn; called after the optimiser, that is u (line 8) and then θ' of the
    next turn (line 6). u is not rescaled when ρ grows, since it is the unscaled dual.
    """
    current = _detached(weights)
    rho = state.rho
    names, now = list(current), list(current.values())
    gaps = torch._foreach_sub(now, [state.target[name] for name in names])
    moved_dual = torch._foreach_add([state.dual[name] for name in names], gaps, alpha=rho)  # Eq. (9)
    grown = min(rho * rho_growth, rho_max)
    points = torch._foreach_add(now, torch._foreach_div(moved_dual, grown))
    dual = dict(zip(names, moved_dual, strict=True))
    target = project(dict(zip(names, points, strict=True)), keep)  # Eq. (7)
    moved = _distance(target, state.target) / max(_norm(target), 1e-12)
    return AdmmState(target, dual, grown, grown * moved)


def add_penalty_gradient(state: AdmmState, weights: Weights) -> None:
    """Add the gradient of <u, θ-θ'> + ρ/2 ‖θ-θ'‖², which is u + ρ(θ-θ'), to each `.grad`; Eq. (8).

    Args:
        state: of this iteration.
        weights: parameters; or effective tensors of parametrised weights, whose originals get the gradient.
    """
    plain = {name: weight for name, weight in weights.items() if weight.is_leaf}
    for name in weights.keys() - plain.keys():
        weights[name].backward(state.dual[name] + state.rho * (weights[name].detach() - state.target[name]))
    gradients = []
    for name, weight in plain.items():
        if weight.grad is None:
            raise ValueError(f"{name} has no gradient yet; call this after backward()")
        gradients.append(weight.grad)
    if gradients:
        gaps = torch._foreach_sub(
            [weight.detach() for weight in plain.values()], [state.target[name] for name in plain]
        )
        torch._foreach_add_(gradients, [state.dual[name] for name in plain])
        torch._foreach_add_(gradients, gaps, alpha=state.rho)


def residuals(state: AdmmState, weights: Weights) -> Residuals:
    """Primal and dual residual of the current iterate."""
    current = _detached(weights)
    return Residuals(_distance(current, state.target) / max(_norm(current), 1e-12), state.dual_residual)


def _detached(weights: Weights) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in weights.items()}


def _norm(weights: Weights) -> float:
    return float(torch.stack(torch._foreach_norm(list(weights.values()))).norm())


def _distance(left: Weights, right: Weights) -> float:
    return _norm(dict(zip(left, torch._foreach_sub(list(left.values()), [right[name] for name in left]), strict=True)))
