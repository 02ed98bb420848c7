"""Which channels go together: a network without some, against the same network with them masked."""

import pytest
import torch
from torch import nn

from robust_edge.models import ModelSpec, build_model
from robust_edge_exporters.compaction.channels import remove_channels
from robust_edge_exporters.compaction.dependencies import channel_groups

SHAPE = (3, 8, 8)


class Blocks(nn.Module):
    """Additions, concatenation, depthwise and grouped convolutions, pixels flattened into a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left = nn.Conv2d(8, 6, 1)
        self.right = nn.Conv2d(8, 6, 1)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.norm = nn.BatchNorm2d(12)
        self.grouped = nn.Conv2d(12, 4, 1, groups=2)
        self.head = nn.Linear(4 * 64, 5)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.cat([self.left(x), self.right(x)], 1)
        x = torch.relu(self.norm(self.depthwise(x)))
        return self.head(self.grouped(x).flatten(1))


def zoo(arch):
    torch.manual_seed(0)
    classes = tuple("0123456789")
    return build_model(ModelSpec(arch=arch, shape=SHAPE, classes=classes, mean=(0.0,) * 3, std=(1.0,) * 3)).eval()


@pytest.mark.parametrize("arch", ["small_cnn", "resnet18", "mobilenet_v2"])
def test_a_network_without_channels_computes_what_it_computes_with_them_masked(arch):
    """Every removable group loses some channels, first as zeros in what reads them, then for good."""
    model = zoo(arch).requires_grad_(False)
    groups = [group for group in channel_groups(model, SHAPE) if group.removable]
    images = torch.rand(2, *SHAPE)
    for group in groups:
        for part in group.slices:
            if part.dim == 1:
                lost = part.index[(part.channel % 100 == 1) | (part.channel == 3)]
                model.get_parameter(part.parameter)[:, lost] = 0
    masked = model(images)
    before = sum(parameter.numel() for parameter in model.parameters())
    remove_channels(
        model,
        {group: (torch.arange(group.channels) % 100 == 1) | (torch.arange(group.channels) == 3) for group in groups},
    )
    assert sum(parameter.numel() for parameter in model.parameters()) < before
    assert torch.allclose(model(images), masked, atol=1e-5)


@pytest.mark.parametrize("arch", ["small_cnn", "resnet18", "mobilenet_v2"])
def test_every_layer_is_written_once_and_only_classes_stay(arch):
    model = zoo(arch)
    groups = channel_groups(model, SHAPE)
    written = [part.parameter for group in groups for part in group.slices if part.dim == 0]
    layers = {name for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    assert len(written) == len(set(written))
    assert {f"{name}.weight" for name in layers} <= set(written)
    assert [group.channels for group in groups if not group.removable] == [10]


def test_concatenated_channels_keep_their_places_and_grouped_convolutions_hold_theirs():
    groups = {group.layer: group for group in channel_groups(Blocks().eval(), SHAPE)}
    right = next(group for group in groups.values() if any(part.parameter == "right.weight" for part in group.slices))
    norm = next(part for part in right.slices if part.parameter == "norm.weight")
    mapped = dict(zip(norm.index.tolist(), norm.channel.tolist(), strict=True))
    assert mapped == {6 + c: c for c in range(6)} or mapped == {c: c for c in range(12)}
    assert not right.removable  # the grouped convolution reads it
    stem = groups["stem"]
    assert stem.removable
    assert {(part.parameter, part.dim) for part in stem.slices} == {
        ("stem.weight", 0),
        ("stem.bias", 0),
        ("left.weight", 1),
        ("right.weight", 1),
    }


def test_the_network_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    model[0].requires_grad_(False)
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    channel_groups(model, SHAPE)
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, False, True, True, True, True]
    assert [module.training for module in model.modules()] == [True, True, False, True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
