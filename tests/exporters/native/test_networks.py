"""Whole networks, 10% kept and randomly normalised, against ONNX Runtime."""

from __future__ import annotations

import contextlib
import io
import warnings

import numpy as np
import onnx
import pytest

from robust_edge_exporters.native import export_native, unsupported
from robust_edge_runtimes.formats.native.engine import Network, compile_library
from tests.exporters.native.networks import answers, reference, relative_error

torch = pytest.importorskip("torch", reason="the networks are exported from PyTorch")

from torch import nn  # noqa: E402

from robust_edge.models import ModelSpec, Normalized, build_model  # noqa: E402
from robust_edge.torchvision_compat import torchvision_module  # noqa: E402

MEAN, STD = (0.49, 0.48, 0.44), (0.2, 0.21, 0.22)
NETWORKS = [("small_cnn", 8), ("resnet18", 32), ("resnet34", 32), ("imagenet_resnet18", 224), ("mobilenet_v2", 32)]


TORCHVISION = (
    "mobilenet_v3_small", "shufflenet_v2_x0_5", "efficientnet_b0", "regnet_y_400mf", "densenet", "squeezenet1_1",
    "googlenet", "convnext_tiny", "mnasnet0_5", "resnext",
)  # fmt: skip


def network(name, size):
    """The network with a tenth of its weights and batch statistics that matter."""
    torch.manual_seed(0)
    if name.startswith("imagenet"):
        model = Normalized(torchvision_module("models").resnet18(num_classes=10), MEAN, STD)
    else:
        classes = tuple("abcdefghij")
        model = build_model(ModelSpec(arch=name, shape=(3, size, size), classes=classes, mean=MEAN, std=STD))
    return pruned(model)


def pruned(model):
    """A tenth of the weights, and batch statistics and layer scales that matter."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.data *= (torch.rand_like(module.weight) < 0.1) * 3
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.8, 1.2)
        if hasattr(module, "layer_scale"):
            module.layer_scale.data.uniform_(0.3, 1)
    return model.eval()


def write_onnx(model, size, path):
    batch = ({0: torch.export.Dim.DYNAMIC},)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # torch.onnx warns of its own internals
        torch.onnx.export(
            model, (torch.rand(2, 3, size, size),), path, dynamo=True, opset_version=18, external_data=False,
            dynamic_shapes=batch, verbose=False,
        )  # fmt: skip
    return path


@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_networks_match_onnx_runtime(name, size, tmp_path):
    path = write_onnx(network(name, size), size, tmp_path / "model.onnx")
    images = np.random.default_rng(0).random((5, 3, size, size), dtype=np.float32)
    expected = reference(path, images)
    export = export_native(path, tmp_path)
    got = answers(tmp_path, images, threads=2, flags=("-O1", "-march=native"))
    assert relative_error(got, expected) <= 1e-4
    assert np.array_equal(got.argmax(1), expected.argmax(1))
    weighted = sum(layer.weights for layer in export.layers)
    assert 0.09 * weighted < export.nonzeros < 0.11 * weighted
    if name in ("resnet34", "mobilenet_v2"):
        assert export.weights_bytes <= 6.2 * export.nonzeros
        halved = export_native(path, tmp_path / "half", weights="fp16")
        assert halved.weights_bytes <= 4.2 * halved.nonzeros
    if name == "resnet34":
        assert compile_library(tmp_path).stat().st_size < 300_000  # as it ships, at -O3
        assert export.memory_bytes < 8_000_000
        compiled = Network(tmp_path / "libtest.so", tmp_path / "weights.bin")
        assert 0 <= compiled.memory - export.memory_bytes < 10_000  # the context's own fields
        compiled.close()
        got = answers(tmp_path / "half", images)
        assert relative_error(got, expected) <= 1e-2


def of_torchvision(name):
    """A network with ten classes; of families that only repeat their blocks, one with few of them."""
    models = torchvision_module("models")
    if name == "densenet":
        return models.DenseNet(block_config=(2, 3, 2, 2), num_classes=10)
    if name == "resnext":
        return models.ResNet(models.resnet.Bottleneck, [1, 2, 1, 1], num_classes=10, groups=32, width_per_group=4)
    options = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    return getattr(models, name)(num_classes=10, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_networks_of_torchvision_match_onnx_runtime(name, tmp_path):
    torch.manual_seed(0)
    path = write_onnx(pruned(of_torchvision(name)), 64, tmp_path / "model.onnx")
    images = np.random.default_rng(0).random((3, 3, 64, 64), dtype=np.float32)
    assert unsupported(onnx.load(path)) == []
    export = export_native(path, tmp_path)
    got, expected = answers(tmp_path, images, threads=2, flags=("-O1", "-march=native")), reference(path, images)
    assert relative_error(got, expected) <= 1e-5
    assert 0.09 < export.nonzeros / sum(layer.weights for layer in export.layers) < 0.11
