"""Order and cost of layers, against counts by hand and torch's own operation counter."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from robust_edge.models import ModelSpec, build_model
from robust_edge.pruning.layout import layout_of
from robust_edge.pruning.prunable import prunable_parameters


class Backwards(nn.Module):
    """Layers registered in the reverse of their order of use, one of them used twice, one not at all."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.spare = nn.Linear(7, 7)
        self.twice = nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.stem = nn.Conv2d(2, 4, 3, stride=2)

    def forward(self, x):
        return self.head(self.twice(self.twice(self.stem(x))).mean((2, 3)))


def test_order_of_use_groups_and_positions():
    layout = layout_of(Backwards(), (2, 9, 7))
    assert layout.depth == ("stem.weight", "twice.weight", "head.weight")
    assert (layout.stem, layout.classifier) == ("stem.weight", "head.weight")
    assert (layout.grouped, layout.depthwise) == ({"twice.weight"}, frozenset())
    assert layout.macs_per_weight == {"stem.weight": 12, "twice.weight": 24, "head.weight": 1}


@pytest.mark.parametrize("arch", ["small_cnn", "resnet18", "mobilenet_v2"])
def test_arithmetic_of_the_zoo_is_what_torch_counts(arch):
    spec = ModelSpec(arch=arch, shape=(3, 16, 16), classes=tuple("0123456789"), mean=(0.0,) * 3, std=(1.0,) * 3)
    model = build_model(spec).eval()
    weights = prunable_parameters(model)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 16, 16))
    layout = layout_of(model, (3, 16, 16))
    assert sorted(layout.depth) == sorted(weights)
    ones = {name: torch.ones_like(weight) for name, weight in weights.items()}
    assert 2 * layout.macs(ones) == counter.get_total_flops()
    halved = {name: torch.arange(weight.numel()) % 2 for name, weight in weights.items()}
    assert layout.macs(halved) == layout.macs(ones) // 2


def test_the_network_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 2))
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    layout_of(model, (1, 4, 4))
    assert [module.training for module in model.modules()] == [True, True, False, True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in model.modules())
