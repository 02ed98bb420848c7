"""What counts as a weight of a network, by name, whatever module owns it."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from robust_edge_exporters.weight_uses import weight_uses


class Own(nn.Module):
    """Computes what a test wants."""

    def __init__(self, forward, **tensors):
        super().__init__()
        self._forward = forward
        for name, tensor in tensors.items():
            if isinstance(tensor, (nn.Module, nn.Parameter)):
                setattr(self, name, tensor)
            else:
                self.register_buffer(name, tensor)

    def forward(self, x):
        return self._forward(self, x)


def parameter(*shape):
    return nn.Parameter(torch.randn(shape))


def uses(module, shape=(4, 6, 6)):
    found = weight_uses(module, shape)
    return [(use.name, use.groups, use.input_axis, use.macs_per_weight) for use in found.uses]


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.Conv2d(4, 2, 3), [("weight", 1, 1, 16)]),
        (nn.Conv2d(4, 4, 3, padding=1, groups=4), [("weight", 4, 1, 36)]),
        (nn.ConvTranspose2d(4, 2, 2, 2), [("weight", 1, 0, 36)]),
        (nn.Linear(6, 3), [("weight", 1, 1, 24)]),
        (Own(lambda m, x: m.conv(x.flatten(2)), conv=nn.Conv1d(4, 2, 5)), [("conv.weight", 1, 1, 32)]),
        (Own(lambda m, x: m.conv(x[:, None]), conv=nn.Conv3d(1, 2, 3)), [("conv.weight", 1, 1, 32)]),
        (Own(lambda m, x: functional.conv2d(x, m.kernel), kernel=parameter(2, 4, 3, 3)), [("kernel", 1, 1, 16)]),
        (Own(lambda m, x: x @ m.kernel, kernel=parameter(6, 5)), [("kernel", 1, 0, 24)]),
        (Own(lambda m, x: m.kernel @ x, kernel=parameter(5, 6)), [("kernel", 1, 1, 24)]),
        (Own(lambda m, x: m.twice(m.twice(x)), twice=nn.Linear(6, 6)), [("twice.weight", 1, 1, 48)]),
        (parametrizations.weight_norm(nn.Conv2d(4, 2, 3)), [("weight", 1, 1, 16)]),
        (parametrizations.spectral_norm(nn.Linear(6, 3)), [("weight", 1, 1, 24)]),
        (
            Own(lambda m, x: m.a(*[x.flatten(2)] * 3)[0], a=nn.MultiheadAttention(36, 4, batch_first=True)),
            [("a.in_proj_weight", 1, 1, 4), ("a.out_proj.weight", 1, 1, 4)],
        ),
        (Own(lambda m, x: torch.einsum("nchw,wk->nchk", x, m.kernel), kernel=parameter(6, 5)), [("kernel", 1, 0, 24)]),
    ],
)  # fmt: skip
def test_weights_in_order_of_use(module, expected):
    assert uses(module) == expected


@pytest.mark.parametrize(
    ("module", "depthwise"),
    [
        (nn.Conv2d(4, 8, 3, groups=4), True),
        (nn.Conv2d(4, 4, 3, groups=2), False),
        (nn.ConvTranspose2d(4, 4, 2, groups=4), True),
        (Own(lambda m, x: functional.conv2d(x, m.kernel, groups=4), kernel=parameter(4, 1, 3, 3)), True),
        (Own(lambda m, x: functional.conv2d(x[:, :1], m.kernel), kernel=parameter(4, 1, 3, 3)), False),
        (nn.Linear(6, 3), False),
    ],
)
def test_filters_of_one_channel_are_depthwise(module, depthwise):
    assert [use.depthwise for use in weight_uses(module, (4, 6, 6)).uses] == [depthwise]


def test_activations_that_are_multiplied_are_not_weights():
    assert uses(Own(lambda m, x: x.flatten(2) @ x.flatten(2).mT)) == []


@pytest.mark.parametrize(
    ("forward", "tensors", "name", "computed"),
    [
        (lambda m, x: functional.conv2d(x, m.blur, groups=4), {"blur": torch.ones(4, 1, 3, 3)}, "blur", False),
        (lambda m, x: functional.conv2d(x, m.w - m.w.mean()), {"w": parameter(2, 4, 3, 3)}, "w", True),
        (lambda m, x: functional.conv2d(x, torch.ones(2, 4, 3, 3)), {}, "a constant", False),
        (lambda m, x: x, {"spare": nn.Linear(2, 3)}, "spare.weight", False),
    ],
)
def test_what_is_left_out_is_named(forward, tensors, name, computed):
    (found,) = weight_uses(Own(forward, **tensors), (4, 6, 6)).left_out
    assert (found.name, found.computed) == (name, computed)


def test_a_mask_in_place_over_a_constant_follows_the_image():
    """Zeros that the image is written into are no constant."""

    def forward(m, x):
        rows = torch.zeros(1, 4, 8, 8)
        rows[..., 1:-1, 1:-1] = x
        return rows.flatten(2) @ m.kernel

    assert uses(Own(forward, kernel=parameter(64, 3))) == [("kernel", 1, 0, 4)]


def test_the_network_is_left_as_it_was():
    model = parametrizations.spectral_norm(nn.Conv2d(4, 2, 3))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weight_uses(model, (4, 6, 6))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.backends.mha.get_fastpath_enabled()
