import pytest
import torch
from torch import nn

from robust_edge.pruning.mask import apply_mask


@pytest.fixture
def weights():
    torch.manual_seed(0)
    return {"a": nn.Parameter(torch.randn(4, 5)), "b": nn.Parameter(torch.randn(6))}


@pytest.fixture
def support():
    return {"a": torch.arange(20).view(4, 5) % 3 == 0, "b": torch.arange(6) < 2}


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_the_values_inside_the_mask_stay_and_the_rest_is_zero(weights, support, dtype):
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    apply_mask(weights, {name: kept.to(dtype) for name, kept in support.items()})
    for name, weight in weights.items():
        assert torch.equal(weight[support[name]], before[name][support[name]])
        assert not weight[~support[name]].any()


def test_a_kept_weight_that_is_zero_may_grow(weights, support):
    with torch.no_grad():
        weights["b"][0] = 0.0
    with torch.no_grad():
        weights["b"].add_(1.0)
    apply_mask(weights, support)
    assert int(torch.count_nonzero(weights["b"])) == 2


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_neither_momentum_nor_weight_decay_revives_what_is_masked(weights, support, optimizer):
    settings = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    chosen = optimizer(weights.values(), lr=0.1, weight_decay=0.1, **settings)
    for step in range(6):
        sum(weight.square().sum() + weight.sum() for weight in weights.values()).backward()
        chosen.step()
        chosen.zero_grad()
        if step >= 2:
            assert any(weight[~support[name]].any() for name, weight in weights.items()), "the optimiser revives"
            apply_mask(weights, support)
            assert not any(weight[~support[name]].any() for name, weight in weights.items())


def test_a_pruned_weight_that_turned_infinite_or_negative_is_plain_zero_again(weights, support):
    with torch.no_grad():
        weights["b"][4:] = torch.tensor([-2.0, float("inf")])
    apply_mask(weights, support)
    assert weights["b"][4:].tolist() == [0.0, 0.0]
    assert not torch.signbit(weights["b"][4:]).any()
