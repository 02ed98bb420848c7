"""Statistics against torch's own mean and variance."""

import torch
from torch import nn

from robust_edge.training.batchnorm import frozen_statistics, reestimate


def network(dropout=0.5):
    torch.manual_seed(0)
    return nn.Sequential(nn.Dropout(dropout), nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))


def test_statistics_are_the_mean_over_the_batches():
    model, images = network(), torch.rand(20, 1, 4, 4)
    model(torch.rand(5, 1, 4, 4) * 9)  # of another world
    model.eval()
    with torch.no_grad():
        planes = [model[1](part) for part in images.split(5)]
    reestimate(model, images.split(5))
    mean = torch.stack([part.mean((0, 2, 3)) for part in planes]).mean(0)
    variance = torch.stack([part.var((0, 2, 3)) for part in planes]).mean(0)
    assert torch.allclose(model[2].running_mean, mean, atol=1e-6)
    assert torch.allclose(model[2].running_var, variance, atol=1e-6)


def test_everything_else_stays():
    model = network()
    model.eval()
    weights = [parameter.detach().clone() for parameter in model.parameters()]
    reestimate(model, [torch.rand(5, 1, 4, 4)])
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    assert not any(module.training for module in model.modules())
    assert model[2].momentum == 0.1


def test_the_batches_may_need_gradients_of_their_own():
    model = network()

    def batches():
        points = torch.rand(5, 1, 4, 4, requires_grad=True)
        yield torch.autograd.grad(points.square().sum(), points)[0]

    reestimate(model, batches())


def test_frozen_statistics_normalise_by_the_batch_and_remember_nothing():
    model, images = network(dropout=0.0), torch.rand(6, 1, 4, 4)
    before = model[2].running_mean.clone()
    with frozen_statistics(model):
        frozen = model(images)
    assert torch.equal(model[2].running_mean, before)
    assert int(model[2].num_batches_tracked) == 0
    assert torch.equal(model(images), frozen)  # in training mode
    assert not torch.equal(model[2].running_mean, before)
