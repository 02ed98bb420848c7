"""ONNX graphs written by hand, and what is needed to run their generated C."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from robust_edge_runtimes.formats.native.engine import Network

COMPILER = shutil.which("cc")  # itself: the source of each test is another, so nothing is gained by a cache
FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-ffp-contract=fast", "-fPIC", "-pthread")


class Net:
    """A graph that grows by one node at a time; names are made up."""

    def __init__(self, channels, height, width, seed=0):
        self.shape = (channels, height, width)
        self.random = np.random.default_rng(seed)
        self.nodes, self.constants, self.count = [], [], 0

    def name(self, stem):
        self.count += 1
        return f"{stem}{self.count}"

    def constant(self, array):
        name = self.name("constant")
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, kind, *inputs, **attributes):
        output = self.name(kind.lower())
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"node_{output}", **attributes))
        return output

    def weights(self, *shape, density=1.0):
        """Random weights of unit gain, a fraction `density` of them not zero."""
        fan_in = max(1.0, np.prod(shape[1:]) * density)
        kept = self.random.random(shape) < density
        return (self.random.standard_normal(shape) * kept / np.sqrt(fan_in)).astype(np.float32)

    def vector(self, size):
        return self.random.standard_normal(size).astype(np.float32)

    def conv(self, source, weight, **attributes):
        return self.add("Conv", source, self.constant(weight), self.constant(self.vector(len(weight))), **attributes)

    def save(self, path, *outputs, opset=18):
        """Writes the graph with all `outputs` flattened into one row."""
        rows = [self.add("Flatten", output) for output in outputs]
        last = rows[0] if len(rows) == 1 else self.add("Concat", *rows, axis=1)
        real = onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info("input", real, ["N", *self.shape])],
            [helper.make_tensor_value_info(last, real, ["N", None])],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        onnx.save(model, path)
        return path

    def images(self, count):
        return self.random.random((count, *self.shape), dtype=np.float32)


def reference(path, images):
    """ONNX Runtime's output."""
    ort = pytest.importorskip("onnxruntime", reason="the reference is ONNX Runtime")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def build(folder: Path, *, flags=("-O0", "-march=native")) -> Path:
    """The shared library of the sources in `folder`; unoptimised, which compiles in half the time."""
    need("cc")
    target = folder / "libtest.so"
    command = [COMPILER, *FLAGS, *flags, "-shared", str(folder / "model.c"), "-o", str(target), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def answers(folder: Path, images, *, threads=1, **options):
    """The compiled network's output."""
    network = Network(build(folder, **options), folder / "weights.bin", threads=threads)
    try:
        return network.infer(images)
    finally:
        network.close()


def need(tool: str) -> None:
    """Skips the test where a program is missing."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")


def relative_error(got, expected):
    """Largest error over the largest expected magnitude."""
    return float(np.abs(got - expected).max() / np.abs(expected).max())
