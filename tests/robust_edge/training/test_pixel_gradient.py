"""The gradient of the pixels in blocks against automatic differentiation."""

import pytest
import torch
from torch import nn

from robust_edge.training.pixel_gradient import block_kernel, block_side, pixel_gradient

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kernel", [1, 3, (5, 3)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_equals_automatic_differentiation(channels, kernel, layout):
    generator = torch.Generator().manual_seed(0)
    sides = (kernel, kernel) if isinstance(kernel, int) else kernel
    layer = nn.Conv2d(channels, 5, sides, padding=tuple(side // 2 for side in sides), bias=False).double()
    images = torch.rand(2, channels, 8, 12, generator=generator, dtype=torch.float64).requires_grad_(True)
    gradient = torch.randn(2, 5, 8, 12, generator=generator, dtype=torch.float64).contiguous(memory_format=layout)
    (expected,) = torch.autograd.grad(layer(images), images, gradient)
    side = block_side(layer)
    found = pixel_gradient(gradient, block_kernel(layer.weight.detach(), side), side)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"in_channels": 5},
        {"stride": 2},
        {"dilation": 2, "padding": 2},
        {"groups": 3, "out_channels": 3},
        {"padding": 0},
        {"kernel_size": 4, "padding": 2},
    ],
)
def test_other_convolutions_have_no_blocks(options):
    plain = {"in_channels": 3, "out_channels": 4, "kernel_size": 3, "padding": 1}
    assert block_side(nn.Conv2d(**plain)) == 2
    assert block_side(nn.Conv2d(**{**plain, **options})) is None
