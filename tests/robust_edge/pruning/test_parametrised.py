"""Pruning the effective tensor of a parametrised weight, whatever computes it."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from robust_edge.pruning import admm
from robust_edge.pruning.parametrised import attach_effective_masks, materialised, set_effective_masks
from robust_edge.pruning.prunable import prunable_parameters
from tests.traced import traced


class Centred(nn.Module):
    """Moves every weight, so that zeros of the original are none of the weight."""

    def forward(self, weight):
        return weight - weight.mean()


def centred(layer):
    parametrize.register_parametrization(layer, "weight", Centred())
    return layer


KINDS = (parametrizations.weight_norm, parametrizations.spectral_norm, centred)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def model(request):
    torch.manual_seed(0)
    return traced(nn.Sequential(request.param(nn.Linear(6, 4)), nn.ReLU(), nn.Linear(4, 3)), (6,))


def test_what_the_mask_removes_is_zero_whatever_the_optimiser_does(model):
    attach_effective_masks(model, prunable_parameters(model))
    mask = torch.arange(24).view(4, 6) % 5 == 0
    mask[1] = False  # a whole row, whose norm would be zero
    set_effective_masks(model, {"0.weight": mask, "2.weight": torch.ones(3, 4)})
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        model(torch.randn(5, 6)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    weight = prunable_parameters(model)["0.weight"]
    assert not weight[~mask].any()
    assert weight[mask].all()
    assert weight.isfinite().all()


def test_plain_and_parametrised_networks_compute_the_same_and_the_original_stays(model):
    model.eval()
    images, before = torch.randn(5, 6), [name for name, _ in model.named_parameters()]
    plain = materialised(model)
    assert torch.equal(plain(images), model(images))
    assert sorted(plain.state_dict()) == ["0.bias", "0.weight", "2.bias", "2.weight"]
    assert [name for name, _ in model.named_parameters()] == before
    assert materialised(plain) is plain


def test_the_gradient_of_the_penalty_reaches_the_originals(model):
    """Against the gradient of the penalty itself, by autograd."""
    model.eval()
    names = list(prunable_parameters(model))
    state = admm.init(
        prunable_parameters(model), lambda weights, keep: {n: w * 0.5 for n, w in weights.items()}, 1, 0.7
    )
    for name in names:
        state.dual[name].normal_()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    admm.add_penalty_gradient(state, prunable_parameters(model))
    found = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    penalty = sum(
        (state.dual[name] * (weight - state.target[name])).sum() + 0.35 * (weight - state.target[name]).square().sum()
        for name, weight in prunable_parameters(model).items()
    )
    expected = torch.autograd.grad(penalty, list(model.parameters()), materialize_grads=True)
    for ours, autograd in zip(found, expected, strict=True):
        assert torch.allclose(ours, autograd, atol=1e-6)
