"""Whole networks in 8 bits, 10% kept: every instruction set and the twin compute the logits of the reference."""

from __future__ import annotations

import platform
import subprocess

import numpy as np
import onnx
import pytest
import torch

from robust_edge.int8.network import Int8Network
from robust_edge.models import ModelSpec, build_model
from robust_edge_exporters.formats.native.integers import int8_graph_of, with_ranges
from robust_edge_exporters.formats.onnx.without_weights import GRAPH, without_weights
from robust_edge_exporters.native import Options, export_native
from robust_edge_exporters.native.importer import import_onnx
from robust_edge_exporters.native.int8 import calibrate, reference
from robust_edge_exporters.native.int8.quantise import prepared, quantise, ranged_tensors
from robust_edge_runtimes.formats.native.engine import cpu
from tests.exporters.native.int8.test_integers import ARM, X86
from tests.exporters.native.networks import answers, need
from tests.exporters.native.test_networks import write_onnx
from tests.exporters.native.test_portability import STRICT, predict

NETWORKS = ("slim_resnet", "mobilenet_v2")
FORMS = ("avx512-vnni", "avx-vnni", "avx2", "scalar")


def network(name):
    """A tenth of the weights, depthwise ones dense, and batch statistics that keep the values of layers alike."""
    torch.manual_seed(0)
    scales = {"mean": (0.5,) * 3, "std": (0.2,) * 3}
    model = build_model(ModelSpec(arch=name, shape=(3, 32, 32), classes=tuple("abcdefghij"), **scales)).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d) and module.groups == 1:
            module.weight.data *= torch.rand_like(module.weight) < 0.1
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model(torch.rand(8, 3, 32, 32))
    return model.eval()


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request, tmp_path_factory):
    """Folder of an export, images, and the logits of the reference."""
    folder = tmp_path_factory.mktemp(request.param)
    path = folder / "model.onnx"
    program = onnx.load(write_onnx(network(request.param), 32, path))
    images = np.random.default_rng(0).random((4, 3, 32, 32), np.float32)
    graph = prepared(import_onnx(path))
    ranges = calibrate.ranges(program, ranged_tensors(graph), images)
    export = export_native(path, folder, weights="int8", ranges=ranges, options=Options(images=2))
    onnx.save(with_ranges(without_weights(program), export.ranges), folder / GRAPH)
    expected = reference.run(quantise(graph, export.ranges), images)
    assert len(np.unique(expected)) > 30
    return folder, images, expected


@pytest.mark.parametrize("form", FORMS)
def test_every_instruction_set_computes_the_logits_of_the_reference(form, exported):
    flags, feature = X86.get(form, (("-DRE_SCALAR",), ""))
    if form in X86 and (platform.machine() != "x86_64" or f" {feature}" not in cpu()):
        pytest.skip(f"this CPU has no {feature}")
    folder, images, expected = exported
    np.testing.assert_array_equal(answers(folder, images, flags=("-O1", *flags)), expected)


def test_aarch64_computes_the_logits_of_the_reference_under_emulation(exported, tmp_path):
    need("aarch64-linux-gnu-gcc")
    need("qemu-aarch64")
    folder, images, expected = exported
    sources = [str(folder / "predict.c"), str(folder / "model.c")]
    command = ["aarch64-linux-gnu-gcc", *STRICT, "-O1", ARM["dotprod"], "-static", *sources]
    subprocess.run([*command, "-o", str(tmp_path / "predict"), "-lm"], capture_output=True, check=True)
    got = predict(tmp_path / "predict", folder, images[:1], emulator=("qemu-aarch64", "-cpu", "max"))
    np.testing.assert_array_equal(got.astype(np.float32), expected[:1])


def test_the_twin_computes_the_logits_of_the_reference(exported):
    folder, images, expected = exported
    with torch.no_grad():
        found = Int8Network(int8_graph_of(folder))(torch.from_numpy(images))
    np.testing.assert_array_equal(found.numpy(), expected)
