"""Artifacts that loop for ever or ask for more memory than there is: one line and the exit code of a bad file."""

from __future__ import annotations

import dataclasses
import os
import sys

import numpy as np
import pytest

from robust_edge_runtimes.cli.supervision import memory_in_use
from robust_edge_runtimes.core import bundle as bundles
from robust_edge_runtimes.core.golden import GOLDEN, write_golden
from tests.commands import run_forked

onnx = pytest.importorskip("onnx", reason="the hostile graphs are written with onnx")
torch = pytest.importorskip("torch", reason="the hostile scripts are written with torch")

from tests.attacks import endless, scripts  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # TorchScript is deprecated since 2.10
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits are enforced on Linux only"),
]

A_SECOND = ("--max-seconds", "1")


def little_memory():
    """A tenth of a gigabyte above what this process, and so its fork, has in use."""
    return "--max-memory", f"{memory_in_use(os.getpid()) / 1e9 + 0.1}"


def for_digits(program):
    """As `endless.large_constant`, for images of the built-in data set."""
    endless.large_constant(program)
    for axis in (2, 3):
        program.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 8
    program.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones((4, 64), np.float32), "weight"))


@pytest.fixture
def hostile(linear, write_bundle, tmp_path):
    """hostile(change) -> a bundle of the linear classifier with another graph."""

    def write(change):
        program = endless.behind(linear.program(), change)
        return write_bundle(tmp_path / change.__name__, program=program)

    return write


GRAPHS = [
    (endless.always, A_SECOND, "classifying 1 image by {} did not end within 1 s"),
    (endless.on_bright_images, A_SECOND, "classifying 60 images by {} did not end within"),
    (endless.large_constant, None, "{} takes more than"),  # when it is read or when it runs: versions differ
]


@pytest.mark.parametrize(("change", "limits", "message"), GRAPHS)
def test_an_endless_graph_is_stopped(change, limits, message, hostile, tmp_path):
    bundle = hostile(change)
    words = ("robust-edge-device", "verify", bundle, *(limits or little_memory()))
    error = run_forked(*words, errors=tmp_path / "errors", expect=4)
    assert error.startswith("error: ")
    assert message.format(bundle / "model.onnx") in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["robust-edge verify", "robust-edge-device bench"])
def test_every_command_that_opens_a_bundle(command, hostile, tmp_path):
    error = run_forked(*command.split(), hostile(endless.always), *A_SECOND, errors=tmp_path / "errors", expect=4)
    assert "did not end within 1 s" in error


@pytest.mark.parametrize("command", ["bench {}", "import {} -o out"])
def test_a_file_that_is_not_in_a_bundle(command, hostile, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    change = for_digits if command.startswith("import") else endless.large_constant
    words = [word.format(hostile(change) / "model.onnx") for word in command.split()]
    error = run_forked("robust-edge", *words, *little_memory(), errors=tmp_path / "errors", expect=2)
    assert "takes more than" in error
    assert error.count("\n") == 1


@pytest.fixture
def script(linear, golden, make_manifest, tmp_path):
    """script(kind) -> a bundle of TorchScript."""

    def write(kind):
        folder = tmp_path / kind.__name__
        folder.mkdir()
        layer = torch.nn.Linear(16, 4)
        layer.weight.data, layer.bias.data = (torch.from_numpy(x) for x in (linear.weight, linear.bias))
        network = kind(torch.nn.Sequential(torch.nn.Flatten(), layer))
        torch.jit.script(network.eval()).save(str(folder / "model.ts"))
        write_golden(folder / GOLDEN, golden)
        manifest = make_manifest(linear, golden)
        changes = {"file": "model.ts", "format": "csr", "opset": None, "ir_version": None}
        artifact = dataclasses.replace(manifest.artifact, **changes)
        bundles.seal(folder, dataclasses.replace(manifest, target="x86-cpu-csr", artifact=artifact))
        return folder

    return write


SCRIPTS = [(scripts.Loops, A_SECOND, "did not end within 1 s"), (scripts.Allocates, None, "takes more than")]


@pytest.mark.parametrize(("kind", "limits", "message"), SCRIPTS)
def test_an_endless_script_is_stopped(kind, limits, message, script, golden, tmp_path):
    np.save(tmp_path / "image.npy", golden.clean[0])
    words = ("robust-edge-device", "predict", script(kind), tmp_path / "image.npy", *(limits or little_memory()))
    error = run_forked(*words, errors=tmp_path / "errors", expect=4)
    assert message in error
    assert error.count("\n") == 1


def test_an_endless_twin_is_stopped(script, tmp_path):
    words = ("robust-edge", "verify", script(scripts.LoopsWithGradients), "--mode", "whitebox", *A_SECOND)
    error = run_forked(*words, errors=tmp_path / "errors", expect=4)
    assert "classifying 2 images by the twin of" in error.splitlines()[-1]
