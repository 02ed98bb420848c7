"""Sizes against the published figures for ten classes, corrected by what the small-image stem changes."""

import pytest
import torch
from torch import nn

from robust_edge.models import ModelSpec, build_model
from robust_edge.models.mobilenet import mobilenet_v2
from robust_edge.models.resnet import resnet18, resnet34
from robust_edge.models.slim_resnet import slim_resnet
from robust_edge.models.small_cnn import small_cnn
from robust_edge.torchvision_compat import torchvision_module


def parameters_of(model):
    return sum(parameter.numel() for parameter in model.parameters())


def macs_of(model, shape):
    """Multiply-accumulates of convolutions and linear layers for one image, from the shapes that flow."""
    total = 0

    def count(layer, inputs, output):
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            per_output = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
        else:
            per_output = layer.in_features
        total += output.numel() * per_output

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    model.eval()
    with torch.no_grad():
        model(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return total


def test_resnet34_is_torchvision_s_with_a_stem_of_3x3():
    assert parameters_of(torchvision_module("models").resnet34(num_classes=10)) == 21_289_802
    assert parameters_of(resnet34(10, 3)) == 21_289_802 - 64 * 3 * (7 * 7 - 3 * 3)


def test_mobilenet_v2_has_torchvision_s_parameters():
    assert parameters_of(mobilenet_v2(10, 3)) == 2_236_682


def test_small_cnn_by_hand():
    weights = 1 * 32 * 9 + 32 * 64 * 9 + 64 * 128 * 9 + 128 * 10
    assert weights == 93_728
    assert parameters_of(small_cnn(10, 1)) == weights + 2 * (32 + 64 + 128) + 10


def test_slim_resnet_is_resnet18_with_a_quarter_of_the_channels():
    slim, wide = ([p for p in build(10, 3).parameters() if p.ndim == 4] for build in (slim_resnet, resnet18))
    assert parameters_of(slim_resnet(10, 3)) == 701_466
    assert [(p.shape[0] * 4, p.shape[2:]) for p in slim] == [(p.shape[0], p.shape[2:]) for p in wide]


@pytest.mark.parametrize(
    ("factory", "gmacs"), [(resnet18, 0.56), (resnet34, 1.16), (mobilenet_v2, 0.09), (slim_resnet, 0.035)]
)
def test_cost_of_one_cifar_image(factory, gmacs):
    assert macs_of(factory(10, 3), (3, 32, 32)) / 1e9 == pytest.approx(gmacs, abs=0.006)


@pytest.mark.parametrize(("factory", "side"), [(resnet18, 4), (resnet34, 4), (mobilenet_v2, 4), (slim_resnet, 4)])
def test_the_last_planes_of_a_cifar_image_are_not_a_single_pixel(factory, side):
    seen = []
    network = factory(10, 3).eval()
    last = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)][-1]
    last.register_forward_hook(lambda layer, inputs, output: seen.append(output.shape[-2:]))
    network(torch.zeros(1, 3, 32, 32))
    assert seen == [(side, side)]


@pytest.mark.parametrize("factory", [resnet18, resnet34, mobilenet_v2, slim_resnet, small_cnn])
def test_the_first_layer_takes_any_number_of_channels(factory):
    first = next(layer for layer in factory(2, 5).modules() if isinstance(layer, nn.Conv2d))
    assert first.in_channels == 5
    assert first.stride == (1, 1)


def test_mobilenet_s_dropout_is_off_in_evaluation_and_follows_the_seed_in_training():
    spec = ModelSpec(arch="mobilenet_v2", shape=(1, 8, 8), classes=("a", "b"), mean=(0.0,), std=(1.0,))
    torch.manual_seed(0)
    model = build_model(spec)
    assert any(isinstance(layer, nn.Dropout) and layer.p > 0 for layer in model.modules())
    images = torch.rand(4, 1, 8, 8)

    def trained(seed):
        torch.manual_seed(seed)
        return model.train()(images)

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))
    model.eval()
    assert torch.equal(model(images), model(images))
