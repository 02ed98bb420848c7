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
    dual = {n: u + rho * (current[n] - state.target[n]) for n, u in state.dual.items()}  # Eq. (9)
    grown = min(rho * rho_growth, rho_max)
    target = project({n: current[n] + dual[n] / grown for n in current}, keep)  # Eq. (7)
    moved = _distance(target, state.target) / max(_norm(target), 1e-12)
    return AdmmState(target, dual, grown, grown * moved)


def add_penalty_gradient(state: AdmmState, weights: Weights) -> None:
    """Add the gradient of <u, θ-θ'> + ρ/2 ‖θ-θ'‖², which is u + ρ(θ-θ'), to each `.grad`; Eq. (8).

    Args:
        state: of this iteration.
        weights: parameters; or effective tensors of parametrised weights, whose originals get the gradient.
    """
    for name, weight in weights.items():
        if not weight.is_leaf:
            weight.backward(state.dual[name] + state.rho * (weight.detach() - state.target[name]))
            continue
        if weight.grad is None:
            raise ValueError(f"{name} has no gradient yet; call this after backward()")
        weight.grad.add_(state.dual[name]).add_(weight.detach() - state.target[name], alpha=state.rho)


def residuals(state: AdmmState, weights: Weights) -> Residuals:
    """Primal and dual residual of the current iterate."""
    current = _detached(weights)
    return Residuals(_distance(current, state.target) / max(_norm(current), 1e-12), state.dual_residual)


def _detached(weights: Weights) -> dict[str, Tensor]:
    return {name: weight.detach() for name, weight in weights.items()}


def _norm(weights: Weights) -> float:
    return float(torch.stack([weight.square().sum() for weight in weights.values()]).sum().sqrt())


def _distance(left: Weights, right: Weights) -> float:
    return _norm({name: left[name] - right[name] for name in left})
