"""Weights that a parametrization computes, as weight norm and spectral norm do: their effective tensors are pruned.

The mask is one more parametrization behind the others, so that what is pruned is exactly zero whatever they compute.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_runtimes.core.errors import InputError

M = TypeVar("M", bound=nn.Module)
POWER_ITERATIONS = 50
LARGEST_DEVIATION = 0.02
"""Relative; spectral norm knows the largest singular value of a trained weight no better."""


class Masked(nn.Module):
    """A parametrization that sets entries to zero.

    Attributes:
        kept: bool, shaped like the weight.
        offset: added to the weight inside the mask, see `perturbable`; None most of the time.
    """

    kept: Tensor
    offset: nn.Parameter | None

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", torch.ones_like(weight, dtype=torch.bool))
        self.register_parameter("offset", None)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight inside the mask, zero elsewhere, also where a parametrization divided by zero."""
        moved = weight if self.offset is None else weight + self.offset
        return torch.where(self.kept, moved, torch.zeros_like(weight))

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
    """Add zeros to the masks that `attach_effective_masks` has attached; names of plain parameters are ignored."""
    for name, mask in masks.items():
        attached = mask_of(model, name)
        if attached is not None:
            attached.kept.logical_and_(mask != 0)


def mask_of(model: nn.Module, name: str) -> Masked | None:
    """The mask of a parametrised tensor; None for one that has none, and for a plain parameter."""
    owner, own = _owner(model, name)
    if not parametrize.is_parametrized(owner, own):
        return None
    last = list(owner.parametrizations[own])[-1]  # type: ignore[index]
    return last if isinstance(last, Masked) else None


def effective_names(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """The parametrised tensors by name, each with the names of its originals."""
    found = {}
    for prefix, module in model.named_modules():
        chains = module.parametrizations if parametrize.is_parametrized(module) else nn.ModuleDict()
        assert isinstance(chains, nn.ModuleDict)
        for own, chain in chains.items():
            name = f"{prefix}.{own}".lstrip(".")
            parts = sorted(part for part, _ in chain.named_parameters(recurse=False))
            found[name] = tuple(f"{parametrizations_of(name)}{part}" for part in parts)
    return found


def parametrizations_of(name: str) -> str:
    """What the names of everything begin with that belongs to a parametrised tensor."""
    owner, _, own = name.rpartition(".")
    return f"{owner}.parametrizations.{own}.".lstrip(".")


@torch.no_grad()
def set_effective(model: nn.Module, name: str, value: Tensor) -> None:
    """Give a parametrised tensor a value, by the `right_inverse` of its parametrizations.

    Raises:
        InputError: a parametrization has no right inverse, or gives another tensor than `value`.
    """
    owner, own = _owner(model, name)
    try:
        setattr(owner, own, value.clone())  # an original may become the given tensor itself
    except (NotImplementedError, RuntimeError, ValueError) as cause:
        raise InputError(
            f"{name} is parametrised, and cannot be given a value ({' '.join(str(cause).split())[:100]}); give a state "
            "dict that holds the originals of its parametrization"
        ) from cause
    chain = owner.get_submodule(f"parametrizations.{own}")
    for original in chain.parameters(recurse=False):  # weight norm divides by the norm of a filter of zeros
        if original.shape == value.shape:
            original.masked_fill_(~getattr(owner, own).isfinite(), 1.0)
    modes = {module: module.training for module in chain.modules()}
    chain.train()
    for _ in range(POWER_ITERATIONS):  # spectral norm goes one step further whenever it is read in training mode
        getattr(owner, own)
    for module, mode in modes.items():
        module.training = mode
    error = (getattr(owner, own) - value).norm() / value.norm().clamp_min(1e-30)
    if not error <= LARGEST_DEVIATION:
        raise InputError(
            f"{name} cannot take the value given, its parametrization makes another tensor of it (relative difference "
            f"{float(error):.2g}), as spectral norm does of a pruned one; give a state dict that holds the originals "
            "of the parametrization, or load the file of weights into the same network built without it"
        )


@contextlib.contextmanager
def perturbable(model: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[dict[str, nn.Parameter]]:
    """Parameters whose gradients are those of the weights, and to which a perturbation of the weights may be added.

    A plain weight is such a parameter itself. A parametrised one gets an offset inside the `with` block, which is zero
    at first and is added to the effective tensor.

    Args:
        model: the network; its parametrised weights have the masks of `attach_effective_masks`.
        weights: parameters and effective tensors by name; those that no gradient reaches are left out.
    """
    found: dict[str, nn.Parameter] = {}
    masks: list[Masked] = []
    for name, weight in weights.items():
        mask = mask_of(model, name)
        if not weight.requires_grad:
            continue
        if mask is None:
            found[name] = model.get_parameter(name)
            continue
        mask.offset = found[name] = nn.Parameter(torch.zeros_like(weight))
        masks.append(mask)
    try:
        yield found
    finally:
        for mask in masks:
            mask.offset = None


def materialised(model: M) -> M:
    """The network with every parametrised tensor as a plain parameter; itself if it has none."""
    if not any(parametrize.is_parametrized(module) for module in model.modules()):
        return model
    plain = copy.deepcopy(model)
    with evaluation_mode(plain):  # spectral norm goes one step further whenever it is read in training mode
        for module in list(plain.modules()):
            if parametrize.is_parametrized(module):
                _leave_plain(module)
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
