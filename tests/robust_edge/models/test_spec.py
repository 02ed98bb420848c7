"""Building by name, and what may be wrong with a network of the user's own."""

import sys
import warnings
from types import ModuleType

import pytest
import torch
from torch import nn

from robust_edge.models import ARCHITECTURES, ModelSpec, build_model
from robust_edge_runtimes.core.errors import InputError


def spec_of(arch, shape=(1, 8, 8), classes=3):
    channels = shape[0]
    names = tuple(f"class{i}" for i in range(classes))
    return ModelSpec(arch=arch, shape=shape, classes=names, mean=(0.4,) * channels, std=(0.2,) * channels)


@pytest.fixture
def own(monkeypatch):
    def install(function):
        module = ModuleType("own_model")
        module.build, function.__module__ = function, "own_model"
        monkeypatch.setitem(sys.modules, "own_model", module)
        return spec_of("own_model:build")

    return install


def refused(spec, match):
    with pytest.raises(InputError, match=match) as caught:
        build_model(spec)
    assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (4, 20, 12)])
def test_every_architecture_gives_logits_and_trains_on_every_shape(arch, shape):
    model = build_model(spec_of(arch, shape, classes=7))
    logits = model(torch.rand(2, *shape))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_random_state_decides_the_weights(arch):
    def built(seed):
        torch.manual_seed(seed)
        return build_model(spec_of(arch)).state_dict()

    first, again, other = built(1), built(1), built(2)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_building_leaves_the_statistics_and_the_mode_alone():
    model = build_model(spec_of("small_cnn"))
    assert model.training
    assert int(model.network[1].num_batches_tracked) == 0


def test_the_user_s_function_gets_classes_and_channels(own):
    def build(num_classes, in_channels):
        assert (num_classes, in_channels) == (3, 1)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    assert build_model(own(build))(torch.rand(5, 1, 8, 8)).shape == (5, 3)


def test_a_module_beside_the_user_is_found(tmp_path, monkeypatch):
    (tmp_path / "beside_the_user.py").write_text(
        "from torch import nn\n\ndef build(k, c):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64 * c, k))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert build_model(spec_of("beside_the_user:build"))(torch.rand(2, 1, 8, 8)).shape == (2, 3)


def test_unknown_name_suggests_the_nearest():
    refused(spec_of("resnet35"), "unknown model 'resnet35'; did you mean 'resnet34'")


def test_a_shape_that_no_tensor_has_makes_a_short_message():
    spec = spec_of("small_cnn", shape=(1, 10**30, 8))
    with pytest.raises(InputError) as error:
        build_model(spec)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("arch", ["no_such_module:build", "json:no_such", "torch:", ":x"])
def test_a_function_that_cannot_be_imported(arch):
    refused(spec_of(arch), "cannot be imported")


class Statistics(nn.Linear):
    def __init__(self):
        super().__init__(64, 3)

    def forward(self, images):
        rows = images.flatten(1)
        return super().forward(rows - rows.mean(0))


class Random(nn.Linear):
    def __init__(self):
        super().__init__(64, 3)

    def forward(self, images):
        return super().forward(nn.functional.dropout(images.flatten(1)))


class Noisy(nn.Linear):
    def forward(self, images):
        return super().forward(images.flatten(1)) + 1e-3 * torch.randn(())


class Undefined(nn.Linear):
    def forward(self, images):
        return super().forward(images.flatten(1)).mul(torch.inf)


class Detached(nn.Linear):
    def forward(self, images):
        return super().forward(images.flatten(1).detach())


class Linear64(nn.Linear):
    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, dtype=torch.float64)

    def forward(self, rows):
        return super().forward(rows.double()).float()


def scripted(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        return torch.jit.script(module)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(64, 3)

    def forward(self, images):
        return self.last(images.flatten(1)), images


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda k, c: None, "returned NoneType, not a torch.nn.Module"),
        (lambda k, c: nn.Linear, "returned type, not a torch.nn.Module"),
        (lambda: nn.Linear(1, 1), "failed .TypeError"),
        (lambda k, c: 1 / 0, "failed .ZeroDivisionError"),
        (lambda k, c: nn.Flatten(), "nothing to prune"),
        (lambda k, c: nn.Conv2d(3, k, 1), "cannot take images of shape"),
        (lambda k, c: nn.Sequential(nn.Flatten(), nn.Linear(64, k + 1)), r"gives \(2, 4\) for 2 images"),
        (lambda k, c: nn.Conv2d(c, k, 1), r"gives \(2, 3, 8, 8\) for 2 images"),
        (lambda k, c: Pair(), "gives tuple for 2 images"),
        (
            lambda k, c: nn.Sequential(nn.Flatten(), nn.Linear(64, k), nn.Unflatten(1, (k, 1))),
            r"end with .flatten\(1\)",
        ),
        (lambda k, c: Statistics(), "gives one image other logits alone"),
        (lambda k, c: Random(), "other logits when it is called again with the same images"),
        (lambda k, c: Detached(64, k), "no gradient of the logits with respect to the image"),
        (lambda k, c: Undefined(64, k), "logits that are NaN or infinite"),
        (lambda k, c: Noisy(64, k), "other logits when it is called again with the same images"),
        (lambda k, c: nn.Sequential(nn.Flatten(), Linear64(64, k)), r"network.1.weight.*is float64.*\.float\(\)"),
        (lambda k, c: nn.Sequential(nn.Flatten(), scripted(nn.Linear(64, k))), "'network.1'.*compiled by TorchScript"),
    ],
)
def test_networks_that_cannot_be_compressed(own, build, match):
    refused(own(build), match)


def test_images_too_small_for_the_network():
    class Strict(nn.Module):
        def forward(self, images):
            raise ValueError("too small")

    with pytest.raises(InputError, match="unknown model"):
        build_model(spec_of(Strict.__name__))
