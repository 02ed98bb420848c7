"""Pruning in any training loop of PyTorch: a penalty in the loss, a call after the optimizer's step, and a projection.

Source: Marshall 2020, Algorithm 1. Its lines stand at the functions that compute them; the network, its loss and its
optimizer are the user's.

    state = init(model, (C, H, W), keep=0.1)              # θ', u
    for images, labels in batches:
        loss = criterion(model(images), labels) + penalty(state, model)
        ...                                               # backward, optimizer.step()
        state = step(state, model)
    state = finish(state, model, optimizer)               # the weights lie in S; training may go on under the mask

After `finish` the penalty is 0 and `step` does nothing, so that the same loop trains under the mask.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from robust_edge.pruning import admm
from robust_edge.pruning.mask import apply_mask
from robust_edge.pruning.parametrised import attach_effective_masks, mask_of, set_effective_masks
from robust_edge.pruning.prunable import (
    budget_of,
    decide_prunable,
    is_decided,
    prunable_parameters,
    refuse_computed,
)
from robust_edge.pruning.schemes import scheme_class
from robust_edge.pruning.schemes.scheme import Scheme, kept_in
from robust_edge_runtimes.core.errors import InputError

Masks = Mapping[str, Tensor]
"""Bool tensors (or 0 and 1) by the name of a parameter, shaped like it: where it may be non-zero."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PruningState:
    """The state of pruning beside the weights; never changed in place, the functions return a new one.

    Attributes:
        scheme: the sparsity set S, built for the network.
        keep: fraction of the prunable weights that stay non-zero at the end, in (0, 1].
        rho_growth, rho_max: factor of the penalty ρ per step, and its largest value.
        admm: θ', u and ρ; None where nothing is pruned, and after `finish`.
        masks: float tensors of 0 and 1 after `finish`; None before it.
        held: masks of zeros that were there at the beginning and are never changed; None for none.
    """

    scheme: Scheme
    keep: float
    rho_growth: float = 1.0
    rho_max: float = float("inf")
    admm: admm.AdmmState | None = None
    masks: dict[str, Tensor] | None = None
    held: dict[str, Tensor] | None = None

    def state_dict(self) -> dict[str, Any]:
        """What changes during training, as plain containers that `torch.load(weights_only=True)` reads."""
        own = None if self.admm is None else dataclasses.asdict(self.admm)
        return {"admm": own, "masks": self.masks, "held": self.held}

    def load_state_dict(self, saved: Mapping[str, Any], model: nn.Module, optimizer: Optimizer) -> PruningState:
        """The state that `state_dict` returned, on the device of the network, with its masks attached.

        Args:
            saved: what `state_dict` returned; scheme and settings are those of this state.
            model: the network, whose own state has been loaded.
            optimizer: the optimizer of its training, to which the masks are attached.
        """
        device = next(model.parameters()).device

        def moved(tensors: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
            return None if tensors is None else {name: tensor.to(device) for name, tensor in tensors.items()}

        own = saved["admm"]
        if own is not None:
            own = admm.AdmmState(**{**own, "target": moved(own["target"]), "dual": moved(own["dual"])})
        masks, held = moved(saved["masks"]), moved(saved.get("held"))  # release 0.1 had none to hold
        for attached in (held, masks):
            if attached is not None:
                attach_masks(model, optimizer, attached)
        return dataclasses.replace(self, admm=own, masks=masks, held=held)


def init(
    model: nn.Module,
    shape: tuple[int, ...],
    *,
    keep: float,
    scheme: str | Scheme = "irregular",
    rho: float = 1e-3,
    rho_growth: float = 1.0,
    rho_max: float = 1.0,
) -> PruningState:
    """Start ADMM at the present weights: θ' is their projection, u = 0; Algorithm 1 before its loop.

    Args:
        model: the network, on its device; takes (N, C, H, W). Its prunable weights are found in one forward pass.
        shape: (C, H, W) of one image.
        keep: fraction of the prunable weights that stay non-zero, in (0, 1].
        scheme: name of a scheme, `package.module:Class`, or a scheme with settings, such as `Irregular(scope="layer")`.
        rho: the initial penalty ρ, above 0.
        rho_growth: factor of ρ per `step`, at least 1.
        rho_max: largest ρ.

    Raises:
        InputError: the scheme is unknown or cannot prune the network to `keep`.
    """
    if not 0 < keep <= 1:
        raise InputError(f"`keep` must be a fraction above 0, at most 1; it is {keep}")
    refuse_computed(decide_prunable(model, shape))
    chosen = scheme_class(scheme)() if isinstance(scheme, str) else scheme
    built = PruningState(
        scheme=chosen.build(model, shape, keep), keep=keep, rho_growth=rho_growth, rho_max=max(rho, rho_max)
    )
    return begin(built, model, rho)


def begin(state: PruningState, model: nn.Module, rho: float, keep: float | None = None) -> PruningState:
    """As `init`, for a scheme that has been built; `keep` is that of the first projection, by default the final one."""
    weights = prunable_parameters(model)
    attach_effective_masks(model, weights)
    first = state.keep if keep is None else keep
    return dataclasses.replace(state, admm=admm.init(weights, state.scheme.project, first, rho))


def penalty(state: PruningState, model: nn.Module) -> Tensor:
    """<u, θ-θ'> + ρ/2 ‖θ-θ'‖², to be added to the loss; Algorithm 1, line 7, and Eq. (8).

    Returns:
        A scalar with its graph, on the device of the network; 0 after `finish`.
    """
    own = state.admm
    if own is None:
        return torch.zeros((), device=next(model.parameters()).device)
    terms = []
    for name, weight in prunable_parameters(model).items():
        gap = weight - own.target[name]
        terms.append((own.dual[name] * gap).sum() + own.rho / 2 * gap.square().sum())
    return torch.stack(terms).sum()


def step(state: PruningState, model: nn.Module, *, keep: float | None = None) -> PruningState:
    """Update u and θ' after the optimizer's step; Algorithm 1, lines 8 and 6, Eq. (9) and (7).

    To be called after every step, as in Algorithm 1, or after every n-th one, which saves time. Does nothing after
    `finish`.

    Args:
        state: of the last call.
        model: the network, after the optimizer's step.
        keep: kept fraction of this projection, for a schedule; by default that of the state.
    """
    if state.admm is None:
        return state
    moved = admm.step(
        state.admm,
        prunable_parameters(model),
        state.scheme.project,
        state.keep if keep is None else keep,
        rho_growth=state.rho_growth,
        rho_max=state.rho_max,
    )
    return dataclasses.replace(state, admm=moved)


def finish(state: PruningState, model: nn.Module, optimizer: Optimizer, *, keep: float | None = None) -> PruningState:
    """Project the weights onto S and hold their zeros from now on; the momenta of the optimizer are cleared.

    Args:
        state: ends here; the new one has `masks` and no θ' and u.
        model: changed in place; its pruned weights are exactly zero.
        optimizer: of any kind, see `attach_masks`.
        keep: kept fraction, by default that of the state.
    """
    support = _support(state, prunable_parameters(model), state.keep if keep is None else keep)
    masks = {name: kept.float() for name, kept in support.items()}
    attach_masks(model, optimizer, masks)
    optimizer.state.clear()
    return dataclasses.replace(state, admm=None, masks=masks)


def attach_masks(
    model: nn.Module, optimizer: Optimizer, masks: Masks | None = None, *, shape: tuple[int, ...] | None = None
) -> RemovableHandle:
    """Hold weights at exactly zero: now, and after every step of the optimizer, whatever it does.

    `finish` calls it. For a network that is sparse already, call it with `shape` in place of `masks` before the
    training. Masks that are attached one after another hold the zeros of all of them. A mask marks positions: a weight
    inside it that happens to be zero is trained.

    Args:
        model: the network; weights outside the masks become zero.
        optimizer: of its training; the masks are applied by a hook after each of its steps. Those of parametrised
            weights (weight norm, spectral norm) become a part of the network, as one more parametrization.
        masks: by name of the parameter; by default the non-zero positions of all prunable weights.
        shape: (C, H, W) of one image, to find the prunable weights where neither `init` has found them nor `masks`
            names them.

    Returns:
        A handle whose `remove()` ends it for the weights that are not parametrised.

    Raises:
        InputError: no masks are given, and the prunable weights are not known, or the network computes one of them.
    """
    if masks is None:
        if shape is not None and not is_decided(model):
            refuse_computed(decide_prunable(model, shape))
        masks = {name: weight.detach() != 0 for name, weight in prunable_parameters(model).items()}
    attach_effective_masks(model, masks)
    set_effective_masks(model, masks)
    plain = {name: model.get_parameter(name) for name in masks if mask_of(model, name) is None}
    apply_mask(plain, masks)
    return optimizer.register_step_post_hook(lambda *_: apply_mask(plain, masks))


def _support(state: PruningState, weights: Mapping[str, Tensor], keep: float) -> dict[str, Tensor]:
    """Where weights may be non-zero; all positions that are held leave if there are few enough of them already."""
    held = state.held
    if held is not None and kept_in(held) <= budget_of(weights, keep):
        return dict(held)
    support = state.scheme.support(weights, keep)
    support |= state.scheme.support_beside(support)
    return support if held is None else {name: kept & held.get(name, kept) for name, kept in support.items()}
