"""Weights that a parametrization computes, as weight norm and spectral norm do: their effective tensors are pruned.

The mask is one more parametrization behind the others, so that what is pruned is exactly zero whatever they compute.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

M = TypeVar("M", bound=nn.Module)


class Masked(nn.Module):
    """A parametrization that sets entries to zero.

    Attributes:
        kept: bool, shaped like the weight.
    """

    kept: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", torch.ones_like(weight, dtype=torch.bool))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight inside the mask, zero elsewhere, also where a parametrization divided by zero."""
        return torch.where(self.kept, weight, torch.zeros_like(weight))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """A value that gives `weight`, where that is zero outside the mask."""
        return weight


def attach_effective_masks(model: nn.Module, names: Iterable[str]) -> None:
    """Put a mask that keeps everything behind each parametrised tensor of these names."""
    for name in names:
        owner, own = _owner(model, name)
        if parametrize.is_parametrized(owner, own) and mask_of(model, name) is None:
            parametrize.register_parametrization(owner, own, Masked(getattr(owner, own).detach()), unsafe=True)


@torch.no_grad()
def set_effective_masks(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the masks that `attach_effective_masks` has attached; names of plain parameters are ignored."""
    for name, mask in masks.items():
        attached = mask_of(model, name)
        if attached is not None:
            attached.kept.copy_(mask != 0)


def mask_of(model: nn.Module, name: str) -> Masked | None:
    """The mask of a parametrised tensor; None for one that has none, and for a plain parameter."""
    owner, own = _owner(model, name)
    if not parametrize.is_parametrized(owner, own):
        return None
    last = list(owner.parametrizations[own])[-1]  # type: ignore[index]
    return last if isinstance(last, Masked) else None


def materialised(model: M) -> M:
    """The network with every parametrised tensor as a plain parameter; itself if it has none."""
    if not any(parametrize.is_parametrized(module) for module in model.modules()):
        return model
    plain = copy.deepcopy(model)
    modes = {module: module.training for module in plain.modules()}
    plain.eval()  # spectral norm goes one step further whenever it is read in training mode
    for module in list(plain.modules()):
        if parametrize.is_parametrized(module):
            _leave_plain(module)
    for module, mode in modes.items():
        module.training = mode
    return plain


def _leave_plain(module: nn.Module) -> None:
    """Replace the parametrised tensors of one module by their values.

    `remove_parametrizations` would also remove them from the class, which the copied network shares with the original.
    """
    values = {own: getattr(module, own).detach() for own in module.parametrizations}  # type: ignore[union-attr]
    del module.parametrizations
    module.__class__ = type(module).__bases__[0]
    for own, value in values.items():
        module.register_parameter(own, nn.Parameter(value))


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    owner, _, own = name.rpartition(".")
    return model.get_submodule(owner), own
