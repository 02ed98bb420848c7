"""The folded network against the network itself in evaluation mode, and what is not folded."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from robust_edge.models.mobilenet import mobilenet_v2
from robust_edge.models.resnet import resnet18
from robust_edge.models.small_cnn import small_cnn
from robust_edge.training.folded import FoldedConvolution, folded

pytestmark = pytest.mark.quick
SHAPE = (3, 8, 8)
IMAGES = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(4)


def settled(network):
    """The network with the statistics of a trained one."""
    generator = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(generator=generator)
            layer.running_var.uniform_(0.5, 2, generator=generator)
            layer.weight.data.uniform_(-1, 2, generator=generator)
            layer.bias.data.normal_(generator=generator)
    return network.double().eval()


def gradient(network, images):
    images = images.double().requires_grad_(True)
    logits = network(images)
    return logits.detach(), torch.autograd.grad(functional.cross_entropy(logits, LABELS, reduction="sum"), images)[0]


@pytest.mark.parametrize(("build", "layers"), [(small_cnn, 3), (resnet18, 20), (mobilenet_v2, 52)])
def test_logits_and_gradients_of_the_pixels_are_those_of_the_network(build, layers):
    torch.manual_seed(0)
    network = settled(build(10, 3))
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    found = folded_double(network)
    assert sum(isinstance(layer, FoldedConvolution) for layer in found.graph.modules()) == layers
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in called(found.graph))
    for ours, expected in zip(gradient(found, IMAGES), gradient(network, IMAGES), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("channels", "size"), [(1, (8, 8)), (1, (6, 10)), (3, (7, 9))])
def test_gradients_in_blocks_where_they_fit_the_image_and_without_them_elsewhere(channels, size):
    torch.manual_seed(0)
    network = settled(small_cnn(10, channels))
    found = folded_double(network, (channels, *size))
    images = torch.rand(4, channels, *size)
    for ours, expected in zip(gradient(found, images), gradient(network, images), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-7, atol=1e-9)


def test_only_gradients_that_nothing_else_reads_are_overwritten():
    """Behind a sum, one tensor is the gradient of both terms."""
    torch.manual_seed(0)
    graph = folded(resnet18(10, 3).eval(), SHAPE).graph
    modules = dict(graph.named_modules())
    overwritten = {name for name, layer in modules.items() if isinstance(layer, FoldedConvolution) and layer.in_place}
    assert overwritten, "the first convolution of each block"
    for node in graph.graph.nodes:
        if node.target in overwritten:
            (reader,) = node.users
            assert isinstance(modules[reader.target], FoldedConvolution)


def test_refresh_follows_the_weights_and_the_statistics():
    torch.manual_seed(0)
    network = small_cnn(10, 3).eval()
    found = folded(network, SHAPE)
    before = copy.deepcopy(network)
    network[0].weight.data.mul_(2)
    network[1].running_mean.add_(0.5)
    assert torch.allclose(found(IMAGES), before(IMAGES), atol=1e-5)
    found.refresh()
    assert torch.allclose(found(IMAGES), network(IMAGES), atol=1e-5)
    assert not torch.allclose(network(IMAGES), before(IMAGES), atol=1e-3)


def test_what_cannot_be_traced_or_is_random_is_left_as_it_is():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = small_cnn(10, 3)

        def forward(self, x):
            return self.layers(x) if x.sum() > 0 else self.layers(-x)

    class Random(Branches):
        def forward(self, x):
            return self.layers(x + torch.rand_like(x))

    state = torch.get_rng_state()
    assert folded(Branches(), SHAPE) is None
    assert folded(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), SHAPE) is None, "nothing to fold"
    torch.set_rng_state(state)
    assert folded(Random(), SHAPE) is None


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(4)),
        (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)),
        (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
    ],
)
def test_other_pairs_are_not_folded(layers):
    assert folded(nn.Sequential(*layers).eval(), SHAPE) is None


def test_a_convolution_with_two_readers_keeps_its_own_output():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
            self.second, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.first(x)
            return self.norm(y) + y + functional.relu(self.last(self.second(y)))

    network = settled(Twice()).float()
    found = folded(network, SHAPE)
    assert torch.allclose(found(IMAGES), network(IMAGES), atol=1e-5)
    assert sum(isinstance(layer, FoldedConvolution) for layer in found.graph.modules()) == 1


def called(graph):
    modules = dict(graph.named_modules())
    return [modules[node.target] for node in graph.graph.nodes if node.op == "call_module"]


def folded_double(network, shape=SHAPE):
    """As `folded`, whose comparison is in float32."""
    found = folded(network.float(), shape)
    network.double()
    found.refresh()
    return found
