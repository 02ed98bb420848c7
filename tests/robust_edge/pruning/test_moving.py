"""Moves of a mask against loops over the weights."""

import pytest
import torch
from torch import nn

from robust_edge import pruning
from robust_edge.pruning.moving import check_movable, move_mask, moved_support
from robust_edge.pruning.schemes.block import Block
from robust_edge.pruning.schemes.irregular import Irregular
from robust_edge.pruning.schemes.nm import NOfM
from robust_edge_runtimes.core.errors import InputError

pytestmark = pytest.mark.quick


def tensors(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator), torch.randn(*shape, generator=generator)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9])
def test_the_smallest_leave_and_those_of_largest_gradient_return(share):
    weight, gradient = tensors(5, 8)
    kept = weight.abs() > weight.abs().median()
    moved = moved_support(weight * kept, gradient, kept, share)
    count = min(int(share * int(kept.sum())), int((~kept).sum()))
    inside = sorted(kept.nonzero().tolist(), key=lambda at: abs(float(weight[tuple(at)])))
    outside = sorted((~kept).nonzero().tolist(), key=lambda at: -abs(float(gradient[tuple(at)])))
    assert moved.nonzero().tolist() == sorted(inside[count:] + outside[:count])


def test_blocks_move_as_a_whole():
    weight, gradient = tensors(6, 8, 3, 3)
    kept = Block(size=4).support({"a": weight}, 0.25)["a"]
    moved = moved_support(weight * kept, gradient, kept, 0.3, size=4)
    assert Block(size=4).violation({"a": moved}, 0.25) is None
    assert 0 < int((moved & ~kept).sum()) == int((kept & ~moved).sum())
    norms = {at: float(weight[at[0], at[1] * 4 : at[1] * 4 + 4, at[2], at[3]].norm()) for at in blocks_of(kept)}
    left = blocks_of(kept) - blocks_of(moved)
    assert max(norms[at] for at in left) <= min(norms[at] for at in blocks_of(kept) & blocks_of(moved))


def test_held_zeros_do_not_return():
    weight, gradient = tensors(4, 10)
    kept = torch.zeros(4, 10, dtype=torch.bool)
    kept[:, :4] = True
    allowed = torch.ones_like(kept)
    allowed[:, 8:] = False
    moved = moved_support(weight, gradient, kept, 0.9, allowed=allowed)
    assert not moved[:, 8:].any()
    assert int(moved.sum()) == 16


def test_a_move_during_training_keeps_the_count_and_clears_the_momentum():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    state = pruning.finish(pruning.init(model, (1, 4, 4), keep=0.5), model, optimizer)
    images = torch.rand(6, 1, 4, 4)

    def backward():
        optimizer.zero_grad()
        model(images).square().sum().backward()

    backward()
    optimizer.step()
    backward()
    before = {name: mask.clone() for name, mask in state.masks.items()}
    move_mask(state, model, optimizer, 0.5)
    for name, mask in state.masks.items():
        weight = model.get_parameter(name)
        assert int(mask.sum()) == int(before[name].sum())
        returned = (mask != 0) & (before[name] == 0)
        assert returned.any()
        assert not optimizer.state[weight]["momentum_buffer"][mask != before[name]].any()
        assert not weight[returned].any()
    optimizer.step()
    for name, mask in state.masks.items():
        weight = model.get_parameter(name)
        assert not weight[mask == 0].any()
        assert weight[(mask != 0) & (before[name] == 0)].all(), "returned weights are trained"


class Quarter(Irregular):
    """May have any constraint of its own."""


def test_only_schemes_without_a_pattern_of_their_own_move():
    check_movable(Irregular())
    for scheme in (NOfM(), Quarter()):
        with pytest.raises(InputError, match=r"admm\.regrow"):
            check_movable(scheme)


def blocks_of(support):
    return {tuple(at) for at in support[:, ::4].nonzero().tolist()}
