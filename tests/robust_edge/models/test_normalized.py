import warnings

import torch
from torch import nn

from robust_edge.models import Normalized


def test_inside_is_the_same_as_outside():
    torch.manual_seed(0)
    network = nn.Conv2d(3, 2, 3)
    mean, std = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]
    images = torch.rand(4, 3, 9, 7)
    outside = (images - torch.tensor(mean)[None, :, None, None]) / torch.tensor(std)[None, :, None, None]
    assert torch.equal(Normalized(network, mean, std)(images), network(outside))


def test_mean_and_std_are_saved_and_not_trained():
    model = Normalized(nn.Conv2d(1, 1, 1), [0.5], [0.25])
    assert {"mean", "std"} <= set(model.state_dict())
    assert not {"mean", "std"} & {name for name, _ in model.named_parameters()}


class Branching(nn.Module):
    """Goes another way for dark images, which only the compiler of TorchScript can follow."""

    def forward(self, x):
        if bool(x.mean() < 0):
            return -x
        return x


def test_torchscript_compiles_it_around_a_network_that_cannot_be_traced():
    model = Normalized(Branching(), [0.5], [0.25])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript itself, whose class differs between releases
        scripted = torch.jit.script(model)
    for level in (0.1, 0.9):
        image = torch.full((1, 1, 2, 2), level)
        assert torch.equal(scripted(image), model(image))
