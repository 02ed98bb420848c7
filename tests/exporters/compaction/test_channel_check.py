"""Groups that the network contradicts: the graph's mistakes, ours on purpose, and operations that mix channels."""

import dataclasses

import pytest
import torch
from torch import nn

from robust_edge_exporters.compaction.channel_check import confirmed
from robust_edge_exporters.compaction.dependencies import channel_groups

SHAPE = (3, 4, 4)


class Network(nn.Module):
    """Two convolutions and a linear layer with something between them."""

    def __init__(self, between):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 5, 3, padding=1)
        self.head = nn.Linear(5, 4)
        self.between = between

    def forward(self, x):
        x = self.between(torch.relu(self.norm(self.first(x))))
        return self.head(self.second(x).mean((2, 3)))


def removable(model):
    return {group.layer: group.removable for group in channel_groups(model.eval(), SHAPE)}


PASSES = [nn.Identity(), nn.ReLU6(), nn.MaxPool2d(2), nn.AvgPool2d(2), nn.Hardswish(), nn.Dropout2d(), nn.Upsample(8)]


@pytest.mark.parametrize("between", PASSES, ids=lambda module: type(module).__name__)
def test_what_works_on_each_channel_alone_changes_nothing(between):
    assert removable(Network(between)) == {"first": True, "second": True, "head": False}


class Mixing(nn.Module):
    def __init__(self, mix):
        super().__init__()
        self.mix = mix

    def forward(self, x):
        return self.mix(x)


MIXES = {
    "softmax": lambda x: x.softmax(1),
    "normalise": lambda x: x / x.norm(dim=1, keepdim=True),
    "mean": lambda x: x - x.mean(1, keepdim=True),
    "flip": lambda x: x.flip(1),
    "roll": lambda x: x.roll(1, 1),
}


@pytest.mark.parametrize("mix", MIXES)
def test_operations_that_mix_or_move_channels_are_seen(mix):
    """To torch-pruning they are operations on each element."""
    assert removable(Network(Mixing(MIXES[mix]))) == {"first": False, "second": True, "head": False}


class Flattened(nn.Module):
    """A concatenation that is flattened, of which torch-pruning misplaces the second part."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.left = nn.Conv2d(4, 3, 2, stride=2)
        self.right = nn.Conv2d(4, 2, 2, stride=2)
        self.head = nn.Linear(5 * 4, 4)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.head(torch.cat([self.left(x), self.right(x)], 1).flatten(1))


def test_a_group_that_torch_pruning_misplaces_stays_whole():
    found = removable(Flattened())
    assert found["stem"]
    assert not any(keeps for layer, keeps in found.items() if layer != "stem")


def test_a_forgotten_reader_a_wrong_place_and_a_second_owner_are_seen():
    model = Network(nn.Identity()).eval()
    groups = channel_groups(model, SHAPE)
    group = next(group for group in groups if group.layer == "first")
    others = [other for other in groups if other is not group]

    def holds(changed):
        return confirmed([changed, *others], model, SHAPE)[0].removable

    assert holds(group)
    assert not holds(dataclasses.replace(group, slices=tuple(part for part in group.slices if part.dim == 0)))
    moved = tuple(
        dataclasses.replace(part, index=part.index.flip(0)) if part.dim == 1 else part for part in group.slices
    )
    assert not holds(dataclasses.replace(group, slices=moved))
    double = dataclasses.replace(group)
    assert [found.removable for found in confirmed([group, double], model, SHAPE)] == [False, False]


def test_the_network_is_left_as_it_was():
    model = Network(nn.Identity()).train()
    channel_groups(model, SHAPE)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(module.training for module in model.modules())
