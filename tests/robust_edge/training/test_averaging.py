"""The running mean against a plain recursion, and what becomes of it under a mask."""

import pytest
import torch
from torch import nn

from robust_edge.models import Normalized
from robust_edge.training import averaging


def network(seed):
    torch.manual_seed(seed)
    return Normalized(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)), [0.5], [0.2])


def moved(model, generator):
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator))


@pytest.mark.parametrize("decay", [0.05, 0.5, 0.999])
def test_the_mean_is_the_recursion(decay):
    model, generator = network(0), torch.Generator().manual_seed(1)
    name = "network.3.weight"
    state, mean = averaging.init(model), model.state_dict()[name].double()
    for n in range(30):
        moved(model, generator)
        state = averaging.step(state, model, decay)
        d = min(decay, (1 + n) / (10 + n))
        mean = d * mean + (1 - d) * model.state_dict()[name].double()
        assert torch.allclose(state.tensors[name].double(), mean, atol=1e-5)
    assert state.updates == 30


def test_the_mean_starts_at_the_weights_and_is_its_own():
    model = network(0)
    state = averaging.init(model)
    before = model.network[3].weight.detach().clone()
    moved(model, torch.Generator().manual_seed(0))
    assert torch.equal(state.tensors["network.3.weight"], before)
    average = averaging.averaged(state, model)
    assert torch.equal(average.network[3].weight, before)
    assert not average.training
    assert model.training
    with torch.no_grad():
        average.network[3].weight.zero_()
    assert torch.equal(state.tensors["network.3.weight"], before)


def test_the_mean_of_masked_weights_is_masked():
    model, generator = network(0), torch.Generator().manual_seed(1)
    mask = torch.rand(3, 8, generator=generator) < 0.4
    weight = model.network[3].weight
    with torch.no_grad():
        weight.mul_(mask)
        state = averaging.init(model)
        for _ in range(20):
            moved(model, generator)
            weight.mul_(mask)
            state = averaging.step(state, model, 0.9)
    assert torch.equal(state.tensors["network.3.weight"] != 0, mask)


def test_running_statistics_are_averaged_and_counters_taken_over():
    model = network(0)
    state = averaging.init(model)
    with torch.no_grad():
        model.network[1].running_mean.fill_(1.0)
        model.network[1].num_batches_tracked.fill_(7)
    state = averaging.step(state, model, 0.9)
    assert torch.allclose(state.tensors["network.1.running_mean"], torch.full((2,), 0.9))  # first decay: 1/10
    assert int(state.tensors["network.1.num_batches_tracked"]) == 7
