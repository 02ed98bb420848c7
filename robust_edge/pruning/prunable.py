"""The prunable weights of a network, and their number."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from robust_edge_exporters.weight_uses import WeightUses, named_tensors, weight_uses
from robust_edge_runtimes.core.errors import InputError


def decide_prunable(model: nn.Module, shape: tuple[int, ...]) -> WeightUses:
    """Trace a network and store in it the names of its prunable tensors, in the order of its modules.

    Args:
        model: gets the attribute `prunable`; copies of the network have it, too.
        shape: (C, H, W) of one image.
    """
    found = weight_uses(model, shape)
    used = {use.name for use in found.uses}
    model.prunable = tuple(name for name in named_tensors(model) if name in used)  # type: ignore[assignment]
    return found


def why_unprunable(found: WeightUses) -> str:
    """Why the zeros of a network's weights cannot be held, and what to do; "" if they can.

    They cannot where the forward pass computes a weight from parameters.
    """
    name = next((item.name for item in found.left_out if item.computed), None)
    if name is None:
        return ""
    if name.endswith("_orig"):
        return (
            f"torch.nn.utils.prune computes a weight from {name}, so that zeros there are not zeros of the weight that "
            "is used; make its mask permanent by torch.nn.utils.prune.remove(module, 'weight'), and hold the zeros by "
            "pruning.keep_mask"
        )
    return (
        f"the forward pass computes a weight from {name}, so that zeros there are not zeros of the weight that is "
        "used; make the computation a parametrization (torch.nn.utils.parametrize, or weight_norm of "
        "torch.nn.utils.parametrizations), whose result is pruned, or set pruning.keep to 1"
    )


def refuse_computed(found: WeightUses) -> None:
    """Raise InputError for a network whose forward pass computes a weight from parameters."""
    reason = why_unprunable(found)
    if reason:
        raise InputError(reason)


def prunable_parameters(model: nn.Module) -> dict[str, Tensor]:
    """The prunable tensors by name, in the order of the modules, as `decide_prunable` found them.

    Of a parametrised weight it is the effective tensor, which is computed anew by every call.

    Raises:
        InputError: `decide_prunable` has not traced the network.
    """
    if not is_decided(model):
        raise InputError(
            "the prunable weights of this network are not known; pruning.init finds them in one forward pass, as "
            "pruning.attach_masks does where `shape` is given"
        )
    return {name: tensor_named(model, name) for name in model.prunable}  # type: ignore[union-attr]


def is_decided(model: nn.Module) -> bool:
    """Whether `decide_prunable` has traced the network, or the one that it was copied from."""
    return hasattr(model, "prunable")


def tensor_named(model: nn.Module, name: str) -> Tensor:
    """A parameter, a buffer or the effective tensor of a parametrised weight."""
    owner, _, own = name.rpartition(".")
    tensor: Tensor = getattr(model.get_submodule(owner), own)
    return tensor


def budget_of(weights: Mapping[str, Tensor], keep: float) -> int:
    """k, the number of weights that are kept: round(keep × all), at least 1."""
    return max(1, round(keep * sum(weight.numel() for weight in weights.values())))
