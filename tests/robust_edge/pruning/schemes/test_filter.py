"""Whole channels: nearest within a group by enumeration, and consistent through additions and depthwise layers."""

import itertools

import pytest
import torch
from torch import nn

from robust_edge.models import ModelSpec, build_model
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge.pruning.schemes.filter import Filter, channel_energy
from robust_edge.pruning.settings import PruningConfig
from robust_edge_exporters.compaction.dependencies import channel_groups
from robust_edge_runtimes.core.errors import InputError
from tests.traced import traced

SHAPE = (3, 8, 8)


class Residual(nn.Module):
    """Stem and two layers whose outputs are added; one inner layer with a bias; a classifier over planes."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.inner = nn.Conv2d(6, 5, 3, padding=1)
        self.outer = nn.Conv2d(5, 6, 1, bias=False)
        self.head = nn.Linear(6 * 4, 4)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.outer(torch.relu(self.inner(x))))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def residual(seed=0):
    torch.manual_seed(seed)
    return traced(Residual().requires_grad_(False), SHAPE)


def zoo(arch):
    torch.manual_seed(0)
    spec = ModelSpec(arch=arch, shape=SHAPE, classes=tuple("0123456789"), mean=(0.0,) * 3, std=(1.0,) * 3)
    return build_model(spec)


def written(support, name):
    return support[name].flatten(1).any(1)


def read(support, name):
    return support[name].transpose(0, 1).flatten(1).any(1)


def kept(support):
    return sum(int(mask.sum()) for mask in support.values())


def test_a_channel_goes_from_all_that_write_and_read_it():
    model = residual()
    support = PruningConfig(scheme=Filter()).build(model, SHAPE).support(prunable_parameters(model), 0.4)
    outer, inner = written(support, "stem.weight"), written(support, "inner.weight")
    assert 0 < int(outer.sum()) < 6
    assert 0 < int(inner.sum()) < 5
    assert torch.equal(written(support, "outer.weight"), outer)
    assert torch.equal(read(support, "inner.weight"), outer)
    assert torch.equal(read(support, "outer.weight"), inner)
    assert torch.equal(read(support, "head.weight"), outer.repeat_interleave(4))  # four pixels of each plane
    assert written(support, "head.weight").all()
    assert support["stem.weight"][outer].all()
    assert support["inner.weight"][inner][:, outer].all()


def test_batch_norm_and_biases_of_lost_channels_are_masked_too():
    model = residual()
    scheme = PruningConfig.from_plain({"scheme": "filter"}).build(model, SHAPE)
    support = scheme.support(prunable_parameters(model), 0.4)
    beside = scheme.support_beside(support)
    assert set(beside) == {"norm.weight", "norm.bias", "inner.bias"}  # the classes' biases stay
    assert torch.equal(beside["norm.bias"], written(support, "stem.weight"))
    assert torch.equal(beside["inner.bias"], written(support, "inner.weight"))


@pytest.mark.parametrize("arch", ["small_cnn", "resnet18", "mobilenet_v2"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_zoo(arch, scope):
    model = zoo(arch)
    weights = prunable_parameters(model)
    scheme = PruningConfig.from_plain({"scheme": "filter", "scope": scope}).build(model, SHAPE)
    support = scheme.support(weights, 0.2)
    budget = round(0.2 * sum(weight.numel() for weight in weights.values()))
    assert 0.97 * budget < kept(support) <= budget
    last = list(weights)[-1]
    assert written(support, last).all()
    for name, mask in support.items():  # every mask is written channels × read channels
        rows, columns = written(support, name), read(support, name)
        assert torch.equal(mask.flatten(2).all(2) if mask.dim() > 2 else mask, rows[:, None] & columns[None])
    if arch == "resnet18":
        stage = ["conv1", "layer1.0.conv2", "layer1.1.conv2"]
        assert len({tuple(written(support, f"network.{name}.weight").tolist()) for name in stage}) == 1
    if arch == "mobilenet_v2":
        block = "network.features.5.conv"
        expanded = written(support, f"{block}.0.0.weight")
        assert torch.equal(written(support, f"{block}.1.0.weight"), expanded)
        assert torch.equal(read(support, f"{block}.2.weight"), expanded)
    if scope == "layer":
        shares = [float(written(support, name).float().mean()) for name in weights if name != last]
        assert max(shares) - min(shares) < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_within_a_group_it_is_the_nearest_point(seed):
    """All ways to take as many channels out of one group, the other group left whole."""
    model = residual(seed)
    weights = {name: weight.detach().double() for name, weight in prunable_parameters(model).items()}
    groups = [group for group in channel_groups(model, SHAPE) if group.layer in ("stem", "outer")]
    assert len(groups) == 1
    scheme = Filter(groups=groups)
    support = scheme.support(weights, 0.5)
    gone = int((~written(support, "stem.weight")).sum())
    assert 0 < gone < 5
    found = sum(float(weights[name][~mask].square().sum()) for name, mask in support.items())
    energies = []
    for lost in itertools.combinations(range(6), gone):
        masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
        for c in lost:
            masks["stem.weight"][c] = masks["outer.weight"][c] = False
            masks["inner.weight"][:, c] = False
            masks["head.weight"][:, 4 * c : 4 * c + 4] = False
        energies.append(sum(float(weights[name][~mask].square().sum()) for name, mask in masks.items()))
    assert found == pytest.approx(min(energies))


def test_one_channel_more_would_be_too_many():
    model = residual()
    scheme = PruningConfig.from_plain({"scheme": "filter", "floor": 0.0}).build(model, SHAPE)
    weights = prunable_parameters(model)
    total = sum(weight.numel() for weight in weights.values())
    sizes = sorted({kept(scheme.support(weights, k / total)) for k in range(60, total + 1)})
    for size, larger in itertools.pairwise(sizes):
        assert kept(scheme.support(weights, (larger - 1) / total)) == size
    assert sizes[-1] == total


def test_energy_is_of_all_that_goes_with_a_channel():
    model = residual()
    weights = {name: torch.ones_like(weight) for name, weight in prunable_parameters(model).items()}
    energies = {g.layer: channel_energy(g, weights).tolist() for g in channel_groups(model, SHAPE) if g.removable}
    assert energies.pop("inner") == [6 * 9 + 6] * 5
    assert list(energies.values()) == [[3 * 9 + 5 * 9 + 5 + 4 * 4] * 6]


def test_removing_a_whole_layer_is_an_input_error():
    model = residual()
    scheme = PruningConfig.from_plain({"scheme": "filter"}).build(model, SHAPE)
    with pytest.raises(InputError, match=r"the smallest network that filter pruning allows .* raise pruning\.keep"):
        scheme.support(prunable_parameters(model), 0.05)
    wide = PruningConfig.from_plain({"scheme": "filter", "floor": 0.9}).build(model, SHAPE)
    with pytest.raises(InputError, match=r"lower pruning\.floor"):
        wide.support(prunable_parameters(model), 0.4)


def test_a_network_without_modules_is_an_input_error():
    with pytest.raises(InputError, match=r"imported from ONNX; import its weights with their architecture"):
        Filter().support({"weight": torch.ones(4, 4)}, 0.5)


def test_the_check_sees_half_a_channel_an_empty_group_and_too_much():
    model = residual()
    scheme = PruningConfig.from_plain({"scheme": "filter", "floor": 0.0}).build(model, SHAPE)
    support = scheme.support(prunable_parameters(model), 0.4)
    assert scheme.violation(support, 0.4) is None
    assert "keep 0.2 allows" in scheme.violation(support, 0.2)
    half = {name: mask.clone() for name, mask in support.items()}
    half["stem.weight"][written(support, "stem.weight").nonzero()[0]] = False
    assert "keeps only a part of a channel" in scheme.violation(half, 0.4)
    empty = {name: mask.clone() for name, mask in support.items()}
    empty["inner.weight"][:] = False
    assert scheme.violation(empty, 0.4) == "inner keeps 0 channels; it must keep at least 1"


def test_a_network_that_torch_pruning_cannot_follow_is_refused():
    """It divides by zero at the channel shuffle."""
    spec = {"arch": "torchvision/shufflenet_v2_x0_5", "shape": (3, 64, 64), "classes": tuple("abc")}
    model = build_model(ModelSpec(**spec, mean=(0.0,) * 3, std=(1.0,) * 3))
    with pytest.raises(InputError, match=r"scheme=filter.*ZeroDivisionError.*choose another scheme"):
        Filter().build(model, (3, 64, 64), 0.1)
