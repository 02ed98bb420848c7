"""What training in integers can follow, and what it refuses before it begins."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from robust_edge.int8.folded import probe
from robust_edge.models import ModelSpec, Normalized
from robust_edge.training.quantised import require_quantisable
from robust_edge_runtimes.core.errors import InputError

SHAPE = (1, 8, 8)


class Network(nn.Module):
    """A convolution, something between, and a linear layer."""

    def __init__(self, between):
        super().__init__()
        self.stem, self.between, self.head = nn.Conv2d(1, 4, 3, padding=1), between, nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.between(self.stem(x)).mean((2, 3)))


def network(between):
    torch.manual_seed(0)
    model = Normalized(Network(between), [0.4], [0.3])
    model.spec = ModelSpec(arch="small_cnn", shape=SHAPE, classes=tuple("abc"), mean=(0.4,), std=(0.3,))
    return model


class Residual(nn.Module):
    """Of ResNet: batch norms behind convolutions; or before them, where the first reads what the sum reads, too."""

    def __init__(self, before):
        super().__init__()
        self.norm, self.conv, self.before = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1, bias=False), before

    def forward(self, x):
        return x + (self.conv(functional.relu(self.norm(x))) if self.before else self.norm(self.conv(x)))


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x):
        return torch.relu(x) * self.factor


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        return torch.relu(x)


FOLLOWED = {
    "plain": nn.ReLU(),
    "norm": nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()),
    "norm without parameters": nn.Sequential(nn.BatchNorm2d(4, affine=False), nn.ReLU()),
    "residual": nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), Residual(before=False)),
    "depthwise": nn.Sequential(nn.ReLU6(), nn.Conv2d(4, 4, 3, groups=4, bias=False), nn.BatchNorm2d(4)),
    "weight norm": nn.Sequential(nn.ReLU(), nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1))),
    "layers that nothing calls": Unused(),
}
REFUSED = {
    "network.stem.weight": Residual(before=True),
    "network.between.1.weight, network.between.1.bias": nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(4)),
    "network.between.1": nn.Sequential(nn.MaxPool2d(2), nn.BatchNorm2d(4, affine=False)),
    "network.between.factor": Scaled(),
    "network.between.0.weight": nn.Sequential(nn.Conv2d(4, 4, 1), nn.Hardsigmoid()),
}


@pytest.mark.parametrize("between", FOLLOWED.values(), ids=FOLLOWED)
def test_layers_and_the_batch_norms_behind_them_are_followed(between):
    model = network(between)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    require_quantisable(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training


@pytest.mark.parametrize(("named", "between"), REFUSED.items(), ids=lambda value: "")
def test_what_else_is_trained_is_named_before_training_begins(named, between):
    with pytest.raises(InputError, match=rf"cannot follow {named}.*use training\.quantize none, and calibrate"):
        require_quantisable(network(between))


def test_a_probe_tells_batch_norms_apart():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3), nn.Linear(2, 2))
    found = probe(model)
    assert not torch.equal(found[0].running_var, found[1].running_var)
    assert torch.equal(found[2].weight, model[2].weight)
    assert model[0].running_var.equal(torch.ones(3))
