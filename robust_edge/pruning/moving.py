"""A mask that moves during the masked phase: the weakest kept weights leave, pruned ones of largest gradient return.

Source: Evci 2020 (RigL), Algorithm 1, and Chen 2022 (Flying Bird), which moves masks in adversarial training. As many
return as leave, layer by layer, so that the numbers of weights of all layers, and with them the constraint, stay.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from robust_edge.pruning.loop import PruningState
from robust_edge.pruning.parametrised import mask_of
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge.pruning.schemes import scheme_name
from robust_edge.pruning.schemes.block import Block, blocks, weights_of
from robust_edge.pruning.schemes.irregular import Irregular
from robust_edge.pruning.schemes.macs import Macs
from robust_edge.pruning.schemes.scheme import Scheme, highest
from robust_edge_runtimes.core.errors import InputError


def check_movable(scheme: Scheme) -> None:
    """Raise InputError unless the scheme allows masks to move."""
    # a subclass may have a constraint of its own, which a moved mask would violate
    if type(scheme) not in (Irregular, Macs, Block):
        raise InputError(
            f"admm.regrow moves masks of the schemes irregular and block only, and the scheme is "
            f"{scheme_name(type(scheme))}; set admm.regrow=0"
        )


@torch.no_grad()
def move_mask(state: PruningState, model: nn.Module, optimizer: Optimizer, share: float) -> None:
    """Move a share of the kept weights of every layer, by the weights and gradients of the present step.

    Masks, weights and momenta are changed in place: weights that leave become zero, those that return start at zero,
    and both without momentum. Parametrised weights, layers that stay dense, and zeros that are held do not move.

    Args:
        state: of the masked phase.
        model: after the backward pass; the gradients of pruned weights are those of the loss at zero.
        optimizer: of its training.
        share: fraction of each layer's kept weights, in [0, 1].
    """
    assert state.masks is not None
    for name, weight in prunable_parameters(model).items():
        mask = state.masks[name]
        if mask_of(model, name) is not None or weight.grad is None or name in state.scheme.dense_layers:
            continue
        held = (state.held or {}).get(name)
        size = state.scheme.size if isinstance(state.scheme, Block) else 1
        moved = moved_support(weight, weight.grad, mask != 0, share, size=size, allowed=held)
        changed = moved != (mask != 0)
        mask.copy_(moved)
        weight.masked_fill_(changed, 0.0)
        momentum = optimizer.state.get(weight, {}).get("momentum_buffer")
        if momentum is not None:
            momentum.masked_fill_(changed, 0.0)


def moved_support(
    weight: Tensor, gradient: Tensor, kept: Tensor, share: float, *, size: int = 1, allowed: Tensor | None = None
) -> Tensor:
    """The support after a move of one layer.

    Args:
        weight: (O, I, ...).
        gradient: of the loss, of the same shape.
        kept: bool, of the same shape; whole blocks if `size` is above 1.
        share: fraction of the kept weights that leaves.
        size: input channels of a block; 1 for single weights.
        allowed: where weights may be non-zero; None for everywhere.

    Returns:
        bool, of the same shape, with as many weights as `kept`.
    """
    if size > 1:
        own, strength, pull = (
            blocks(kept, size).any(-1),
            blocks(weight, size).norm(dim=-1),
            blocks(gradient, size).norm(dim=-1),
        )
        free = ~own if allowed is None else ~own & (blocks(allowed, size) != 0).all(-1)
    else:
        own, strength, pull = kept, weight.abs(), gradient.abs()
        free = ~own if allowed is None else ~own & (allowed != 0)
    count = min(int(share * int(own.sum())), int(free.sum()))
    stay = highest(torch.where(own, strength, -1.0), int(own.sum()) - count)
    moved = stay | highest(torch.where(free, pull, -1.0), count)
    return weights_of(moved, size) if size > 1 else moved
