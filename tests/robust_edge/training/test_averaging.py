"""The moving average against a plain recursion, and what becomes of it under a mask."""

import pytest
import torch
from torch import nn

from robust_edge.models import Normalized
from robust_edge.training.averaging import moving_average


def network(seed):
    torch.manual_seed(seed)
    return Normalized(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)), [0.5], [0.2])


def moved(model, generator):
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator))


@pytest.mark.parametrize("decay", [0.05, 0.5, 0.999])
def test_the_average_is_the_recursion(decay):
    model, generator = network(0), torch.Generator().manual_seed(1)
    average, mean = moving_average(model, decay), model.network[3].weight.detach().double()
    for n in range(30):
        moved(model, generator)
        average.update_parameters(model)
        d = min(decay, (1 + n) / (10 + n))
        mean = d * mean + (1 - d) * model.network[3].weight.detach().double()
        assert torch.allclose(average.module.network[3].weight.double(), mean, atol=1e-5)


def test_the_average_starts_at_the_weights_and_is_its_own():
    model = network(0)
    average = moving_average(model, 0.9)
    before = model.network[3].weight.detach().clone()
    moved(model, torch.Generator().manual_seed(0))
    assert torch.equal(average.module.network[3].weight, before)


def test_an_average_goes_on_from_its_saved_state():
    """Bit for bit, the decay of the next update included."""
    model, generator = network(0), torch.Generator().manual_seed(1)
    unbroken = moving_average(model, 0.999)
    for _ in range(3):
        moved(model, generator)
        unbroken.update_parameters(model)
    resumed = moving_average(network(2), 0.999)
    resumed.load_state_dict(unbroken.state_dict())
    moved(model, generator)
    for average in (unbroken, resumed):
        average.update_parameters(model)
    for name, tensor in unbroken.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_the_average_of_masked_weights_is_masked():
    model, generator = network(0), torch.Generator().manual_seed(1)
    mask = torch.rand(3, 8, generator=generator) < 0.4
    weight = model.network[3].weight
    with torch.no_grad():
        weight.mul_(mask)
        average = moving_average(model, 0.9)
        for _ in range(20):
            moved(model, generator)
            weight.mul_(mask)
            average.update_parameters(model)
    assert torch.equal(average.module.network[3].weight != 0, mask)


def test_running_statistics_are_averaged_and_counters_taken_over():
    model = network(0)
    average = moving_average(model, 0.9)
    with torch.no_grad():
        model.network[1].running_mean.fill_(1.0)
        model.network[1].num_batches_tracked.fill_(7)
    average.update_parameters(model)
    assert torch.allclose(average.module.network[1].running_mean, torch.full((2,), 0.9))  # first decay: 1/10
    assert int(average.module.network[1].num_batches_tracked) == 7
