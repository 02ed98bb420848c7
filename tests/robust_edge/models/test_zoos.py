"""Networks of installed libraries by name."""

import subprocess
import sys

import pytest
import torch

from robust_edge.models import ModelSpec, build_model
from robust_edge_runtimes.core.errors import BackendUnavailable, InputError


def spec(arch, channels=1):
    shape = (channels, 32, 32)
    return ModelSpec(arch=arch, shape=shape, classes=("a", "b", "c"), mean=(0.0,) * channels, std=(1.0,) * channels)


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mobilenet_v3_small", "googlenet", "squeezenet1_1"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_classifier_of_torchvision_takes_the_classes_and_channels_of_the_data(name, channels):
    model = build_model(spec(f"torchvision/{name}", channels)).eval()
    with torch.no_grad():
        assert model(torch.rand(2, channels, 32, 32)).shape == (2, 3)


def test_an_unknown_name_is_refused_with_the_closest():
    with pytest.raises(InputError, match=r"resnet81.*did you mean 'resnet18'"):
        build_model(spec("torchvision/resnet81"))
    with pytest.raises(InputError, match="unknown model 'tf/resnet'"):
        build_model(spec("tf/resnet"))


def test_timm_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BackendUnavailable, match=r"robust-edge\[timm\]"):
        build_model(spec("timm/resnet18"))


def test_a_classifier_of_timm_takes_the_classes_and_channels_of_the_data():
    pytest.importorskip("timm", reason="timm is not installed; pip install 'robust-edge[timm]'")
    model = build_model(spec("timm/resnet10t", 2)).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 2, 32, 32)).shape == (2, 3)
    with pytest.raises(InputError, match=r"resnet10s.*did you mean"):
        build_model(spec("timm/resnet10s"))


def test_timm_beside_a_torch_without_the_operators_of_torchvision():
    """In a process of its own: torchvision must be prepared before timm imports it."""
    pytest.importorskip("timm", reason="timm is not installed; pip install 'robust-edge[timm]'")
    code = "from robust_edge.models.zoos.timm import build; build('resnet10t', 3, 1)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
