"""The perturbed gradient by hand, and everything that must be as before afterwards."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, parametrize

from robust_edge.config.training import TrainingConfig
from robust_edge.pruning.parametrised import attach_effective_masks, mask_of, perturbable, set_effective_masks
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge.training import awp
from robust_edge.training.losses import BatchLoss, batch_loss
from tests.traced import traced


def network(seed=0):
    torch.manual_seed(seed)
    layers = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)
    return traced(nn.Sequential(*layers), (1, 4, 4))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.rand(8, 1, 4, 4, generator=generator), torch.randint(0, 3, (8,), generator=generator)


def run(model, batch, masks=None, gamma=0.1, abort=100.0, loss_of=None):
    images, labels = batch
    usual = lambda: batch_loss(model, images, None, labels, TrainingConfig())  # noqa: E731
    return awp.backward(model, prunable_parameters(model), loss_of or usual, gamma=gamma, abort=abort, masks=masks)


def gradients(model, images, labels):
    model.zero_grad()
    functional.cross_entropy(model(images), labels).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("masked", [False, True])
def test_the_gradient_is_that_of_the_worst_weights_nearby(batch, masked):
    model, reference = network(), network()
    masks = None
    if masked:
        masks = {name: (torch.rand(w.shape) < 0.5).float() for name, w in prunable_parameters(model).items()}
        with torch.no_grad():
            for either in (model, reference):
                for name, weight in prunable_parameters(either).items():
                    weight.mul_(masks[name])
    first = gradients(reference, *batch)
    with torch.no_grad():
        for name, weight in prunable_parameters(reference).items():
            ascent = first[name] * (masks[name] if masks else 1)
            weight.add_(0.1 * weight.norm() * ascent / ascent.norm())
    expected = gradients(reference, *batch)
    loss, held = run(model, batch, masks)
    assert held
    assert loss.total.item() == pytest.approx(functional.cross_entropy(model(batch[0]), batch[1]).item())
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], atol=1e-6), name
    weight = "4.weight"
    assert not torch.allclose(model.get_parameter(weight).grad, first[weight], atol=1e-3)


def test_the_perturbed_loss_is_higher(batch):
    model = network()
    seen = []

    def loss_of():
        result = batch_loss(model, batch[0], None, batch[1], TrainingConfig())
        seen.append(result.total.item())
        return result

    run(model, batch, loss_of=loss_of)
    assert seen[1] > seen[0]


def test_pruned_weights_are_not_perturbed_and_all_bits_come_back(batch):
    model = network()
    weights = prunable_parameters(model)
    masks = {name: (torch.rand(weight.shape) < 0.5).float() for name, weight in weights.items()}
    with torch.no_grad():
        for name, weight in weights.items():
            weight.mul_(masks[name])
    before = {name: weight.detach().clone() for name, weight in weights.items()}

    def loss_of():
        assert all(torch.count_nonzero(weight[masks[name] == 0]) == 0 for name, weight in weights.items())
        return batch_loss(model, batch[0], None, batch[1], TrainingConfig())

    run(model, batch, masks, loss_of=loss_of)
    assert all(torch.equal(weight, before[name]) for name, weight in weights.items())


def test_running_statistics_see_the_batch_once_and_unperturbed(batch):
    model, reference = network(), network()
    reference(batch[0])
    run(model, batch)
    assert int(model[1].num_batches_tracked) == 1
    assert torch.equal(model[1].running_mean, reference[1].running_mean)
    assert model[1].track_running_stats


@pytest.mark.parametrize("worse", [float("nan"), float("inf"), 1e6])
def test_a_perturbation_that_diverges_is_dropped(batch, worse):
    model, reference = network(), network()
    calls = 0

    def loss_of():
        nonlocal calls
        calls += 1
        result = batch_loss(model, batch[0], None, batch[1], TrainingConfig())
        return result if calls == 1 else BatchLoss(result.total * 0 + worse, result.figures)

    _, held = run(model, batch, loss_of=loss_of)
    assert not held
    plain = gradients(reference, *batch)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter.grad, plain[name]), name


def test_a_layer_without_gradient_is_left_alone():
    weights = {"a": torch.ones(2, 2), "b": torch.ones(2)}
    steps = awp.perturbation(weights, {"a": torch.zeros(2, 2), "b": torch.tensor([3.0, 4.0])}, 0.5, None)
    assert torch.equal(steps["a"], torch.zeros(2, 2))
    assert steps["b"].norm().item() == pytest.approx(0.5 * 2**0.5)


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize("masked", [False, True])
def test_the_effective_tensor_of_a_parametrised_weight_is_perturbed(batch, norm, masked):
    """Against the gradient of a network whose parametrised weight is moved by a fixed tensor."""
    model, reference = network(), network()
    for either in (model, reference):
        torch.manual_seed(2)
        norm(either[4])
        attach_effective_masks(either, prunable_parameters(either))
        either.eval()  # spectral norm goes one step further whenever it is read in training mode
    masks = {name: torch.ones_like(weight) for name, weight in prunable_parameters(model).items()}
    if masked:
        masks["4.weight"] = (torch.rand(3, 16) < 0.5).float()
        for either in (model, reference):
            set_effective_masks(either, masks)
    images, labels = batch
    weights = prunable_parameters(reference)
    loss = functional.cross_entropy(reference(images), labels)
    steps = {}
    with perturbable(reference, weights) as points:
        first = torch.autograd.grad(functional.cross_entropy(reference(images), labels), list(points.values()))
    for (name, weight), ascent in zip(weights.items(), first, strict=True):
        steps[name] = 0.1 * weight.detach().norm() * ascent / ascent.norm()
    parametrize.register_parametrization(reference[4], "weight", Moved(steps["4.weight"]), unsafe=True)
    with torch.no_grad():
        reference[0].weight.add_(steps["0.weight"])
    assert torch.allclose(reference[4].weight, weights["4.weight"] + steps["4.weight"])
    expected = gradients(reference, *batch)
    found, held = run(model, batch, masks if masked else None)
    assert held
    assert found.total.item() == pytest.approx(loss.item())
    for name, parameter in model.named_parameters():
        assert torch.allclose(parameter.grad, expected[name], atol=1e-6), name
    assert mask_of(model, "4.weight").offset is None
    assert not masked or not model[4].weight[masks["4.weight"] == 0].any()


class Moved(nn.Module):
    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, weight):
        return weight + self.step
