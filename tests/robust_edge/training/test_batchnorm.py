"""Statistics against torch's own mean and variance."""

import copy

import pytest
import torch
from torch import nn

from robust_edge.training.batchnorm import follow_batch, frozen_statistics, quieten, reestimate


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


@pytest.mark.parametrize("momentum", [0.1, 0.4, None])
def test_statistics_follow_batches_as_in_training(momentum):
    model = network(dropout=0.0)
    model[2].momentum = momentum
    trained = copy.deepcopy(model)
    for images in torch.rand(3, 6, 1, 4, 4, generator=torch.Generator().manual_seed(1)):
        follow_batch(model, images)
        trained(images)
    assert model.state_dict().keys() == trained.state_dict().keys()
    for name, expected in trained.state_dict().items():
        assert torch.allclose(model.state_dict()[name], expected, atol=1e-6), name
    assert model.training
    assert model[2].momentum == momentum


def test_only_layers_that_training_changes_follow_batch():
    model, images = nn.Sequential(network(dropout=0.0), nn.BatchNorm1d(2)), torch.rand(6, 1, 4, 4)
    model[0][2].eval()
    before = copy.deepcopy(model.state_dict())
    with frozen_statistics(model):
        follow_batch(model, images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    follow_batch(model, images)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


def test_a_channel_without_variance_is_not_amplified():
    """Of a filter without weights, and of a depthwise filter behind it, where the planes have one pixel."""
    model, images = (
        nn.Sequential(
            nn.Conv2d(2, 3, 1),
            nn.BatchNorm2d(3),
            nn.ReLU6(),
            nn.Conv2d(3, 3, 3, padding=1, groups=3),
            nn.BatchNorm2d(3),
        ),
        torch.rand(9, 2, 1, 1),
    )
    with torch.no_grad():
        model[0].weight[1] = 0
        model[1].bias[1] = 0.5
    reestimate(model, [images])
    expected = model.eval()(images)
    variances = [model[place].running_var.clone() for place in (1, 4)]
    assert all(variance[1] < 1e-12 for variance in variances)
    quieten((model[1], model[4]))
    assert torch.allclose(model(images), expected, atol=1e-3)  # which multiplied rounding by 300, too
    for place, variance in zip((1, 4), variances, strict=True):
        assert model[place].running_var[1] == 1
        assert torch.equal(model[place].running_var[::2], variance[::2])
    follow_batch(model.train(), images)
    assert model[1].running_var[1] == model[4].running_var[1] == 1
    (gradient,) = torch.autograd.grad(model.eval()(images)[:, 1].sum(), model[1].bias)
    assert gradient[1].abs() <= len(images) * model[3].weight[1, 0, 1, 1].abs()


def test_a_batch_in_which_a_channel_is_constant_leaves_its_variance():
    norm = nn.BatchNorm1d(2)
    norm.running_var.copy_(torch.tensor([2e-3, 5.0]))
    follow_batch(norm, torch.tensor([[3.0, 1.0], [3.0, 2.0]]))
    assert torch.allclose(norm.running_var, torch.tensor([2e-3, 0.9 * 5 + 0.1 * 0.5]))
    assert torch.allclose(norm.running_mean, torch.tensor([0.3, 0.15]))
