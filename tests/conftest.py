"""Bundles small enough to know everything about: a linear classifier on 1x4x4 images, written by hand."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from robust_edge_runtimes.core import bundle as bundles
from robust_edge_runtimes.core.golden import GOLDEN, Golden, expected_of, write_golden
from robust_edge_runtimes.core.manifest import (
    SCHEMA_VERSION,
    Artifact,
    AttackSpec,
    LayerCount,
    Manifest,
    Source,
    Sparsity,
    TensorSpec,
)
from robust_edge_runtimes.core.runtime import BaseRuntime, RuntimeInfo

# The same examples on every machine: a failure in CI is a failure here. A busy machine fails no test.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# What `make quick` leaves out: tests that train, compile or run pipelines, by the fixture that does it or by place.
SLOW_FIXTURES = {
    "benign_run", "judged_run", "native", "sibling_run", "sparse_run", "start", "strong", "tiny", "tiny_flags",
    "trained", "workshop",
}  # fmt: skip
SLOW_PLACES = (
    "e2e/", "packaging/", "gpu/", "exporters/native/", "exporters/formats/native/", "runtimes/formats/native/",
    "robust_edge/training/", "robust_edge/evaluation/test_attacks_on_runs.py", "robust_edge/test_reproduce.py",
    "attacks/test_false_artifacts.py", "examples/test_ci.py", "examples/test_pruning.py",
    "exporters/test_cpu_targets.py", "meta/test_readme.py", "meta/test_how_to_add_",
    "runtimes/formats/test_backends.py", "robust_edge/sweep/test_sweep.py", "exporters/compaction/",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """Mark the tests of `make quick`."""
    tests = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(tests).as_posix()
        by_fixture = SLOW_FIXTURES & set(item.fixturenames)
        if not (by_fixture or place.startswith(SLOW_PLACES) or item.get_closest_marker("slow")):
            item.add_marker("quick")


@pytest.fixture(scope="session", autouse=True)
def _state_of_no_user(tmp_path_factory):
    """The code that runs of tests name is not remembered for the user who starts them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
        yield


SHAPE = (1, 4, 4)
CLASSES = ("north", "east", "south", "west")
ATTACK = AttackSpec("pgd", 0.05, 1, 0.05, 7)
IMAGES = 60


@dataclasses.dataclass(frozen=True, eq=False)
class Linear:
    """logits = weight @ pixels + bias, with its cross-entropy gradient in closed form."""

    weight: np.ndarray
    bias: np.ndarray

    def logits(self, images):
        return (images.reshape(len(images), -1) @ self.weight.T + self.bias).astype(np.float32)

    def gradient(self, images, labels):
        scores = self.logits(images).astype(np.float64)
        p = np.exp(scores - scores.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(len(labels)), labels] -= 1
        return (p @ self.weight).reshape(images.shape).astype(np.float32)

    def logits_and_gradient(self, images, labels):
        return self.logits(images), self.gradient(images, labels)

    def program(self, *, inputs="images", outputs="logits", batch="N"):
        """The same network as an ONNX model."""
        onnx = pytest.importorskip("onnx", reason="bundles of the tests are written with onnx")
        make, arrays = onnx.helper, onnx.numpy_helper
        graph = make.make_graph(
            [
                make.make_node("Flatten", [inputs], ["pixels"], axis=1),
                make.make_node("Gemm", ["pixels", "weight", "bias"], [outputs], transB=1),
            ],
            "linear",
            [make.make_tensor_value_info(inputs, onnx.TensorProto.FLOAT, [batch, *SHAPE])],
            [make.make_tensor_value_info(outputs, onnx.TensorProto.FLOAT, [batch, len(self.bias)])],
            [arrays.from_array(self.weight, "weight"), arrays.from_array(self.bias, "bias")],
        )
        return make.make_model(graph, opset_imports=[make.make_opsetid("", 18)], ir_version=8)

    @property
    def sparsity(self):
        kept = int(np.count_nonzero(self.weight))
        return Sparsity(self.weight.size, kept, (LayerCount("weight", self.weight.size, kept),))


@pytest.fixture(scope="session", autouse=True)
def _compile_once(tmp_path_factory):
    """`cc`, `gcc` and `clang` of every test compile the same source once, for all workers; see compile_once.py."""
    base = tmp_path_factory.getbasetemp()
    store = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled"
    store.mkdir(exist_ok=True)
    folder = tmp_path_factory.mktemp("compilers")
    script = shlex.join([sys.executable, "-I", "-S", str(Path(__file__).with_name("compile_once.py"))])
    for name in ("cc", "gcc", "clang"):
        real = shutil.which(name)
        if real is not None:
            call = f'case $1 in --version) exec {real} "$@";; esac\nexec {script} {real} {store} "$@"\n'
            (folder / name).write_text(f"#!/bin/sh\n{call}")
            (folder / name).chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{folder}{os.pathsep}{before}"
    yield
    os.environ["PATH"] = before


@pytest.fixture(scope="session")
def linear():
    """Class k looks at the k-th quarter of the image; three quarters of its weights are zero."""
    weight = np.zeros((4, 16), np.float32)
    for k in range(4):
        weight[k, 4 * k : 4 * k + 4] = np.array([9, 10, 11, 12], np.float32)
    return Linear(weight, np.array([0.5, -0.25, 0, 0.125], np.float32))


@pytest.fixture(scope="session")
def dense_linear(linear):
    """The same classifier, no weight of it zero."""
    return Linear(np.where(linear.weight == 0, np.float32(0.01), linear.weight), linear.bias)


def golden_of(model, count=IMAGES, *, seed=0):
    """`count` images: a grey background, one quarter brighter; some of them fall to the attack."""
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 4
    images = random.uniform(0.3, 0.5, (count, 16))
    for i, label in enumerate(labels):
        images[i, 4 * label : 4 * label + 4] += random.uniform(0.12, 0.3)
    clean = images.reshape(count, *SHAPE).astype(np.float32)
    step = np.float32(ATTACK.eps) * np.sign(model.gradient(clean, labels))
    attacked = np.clip(clean + step, 0, 1).astype(np.float32)
    return Golden(clean, attacked, labels, model.logits(clean), model.logits(attacked), 1e-4)


def manifest_of(model, golden, *, batch=None):
    """What an exporter would say of `model`, before it is sealed."""
    return Manifest(
        schema_version=SCHEMA_VERSION,
        target="x86-cpu",
        artifact=Artifact("model.onnx", "onnx", "fp32", "", 0, 18, 8),
        input=TensorSpec("images", (batch, *SHAPE)),
        input_range=(0.0, 1.0),
        output=TensorSpec("logits", (batch, len(model.bias))),
        classes=CLASSES,
        sparsity=model.sparsity,
        source=Source("quarters", "c" * 64, "linear", "quarters", "f" * 64, {"numpy": np.__version__}),
        expected=expected_of(golden, ATTACK),
        files={},
    )


@pytest.fixture(scope="session")
def write_bundle(linear):
    """write_bundle(folder, model=, golden=, batch=, program=) -> folder, sealed."""

    def write(folder, model=linear, *, golden=None, batch=None, program=None):
        golden = golden_of(model) if golden is None else golden
        program = model.program(batch=batch or "N") if program is None else program
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(program.SerializeToString())
        write_golden(folder / GOLDEN, golden)
        (folder / "labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))
        bundles.seal(folder, manifest_of(model, golden, batch=batch))
        return folder

    return write


@pytest.fixture(scope="session")
def sealed(write_bundle, tmp_path_factory):
    """One bundle of the linear classifier; read it, do not change it."""
    return write_bundle(tmp_path_factory.mktemp("sealed") / "bundle")


@pytest.fixture(scope="session")
def dense_sealed(write_bundle, dense_linear, tmp_path_factory):
    """One bundle of the dense classifier; read it, do not change it."""
    return write_bundle(tmp_path_factory.mktemp("sealed") / "dense", dense_linear)


@pytest.fixture
def bundle(sealed, tmp_path):
    """A copy that the test may break."""
    return Path(shutil.copytree(sealed, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def opened(sealed):
    return bundles.open_bundle(sealed)


@pytest.fixture(scope="session")
def golden(opened):
    return opened.golden()


@pytest.fixture(scope="session")
def make_golden():
    """make_golden(model, count, seed=) -> Golden with the model's own logits."""
    return golden_of


@pytest.fixture(scope="session")
def make_manifest():
    """make_manifest(model, golden, batch=) -> Manifest that lists no files yet."""
    return manifest_of


@pytest.fixture(scope="session")
def forge():
    """forge(folder, edit=None, raw=None): what an attacker does, so that every hash agrees again.

    `edit` changes the parsed manifest in place after the file table has been renewed; `raw` replaces the
    manifest's bytes altogether.
    """

    def sha256(data):
        return hashlib.sha256(data).hexdigest()

    def write(folder, edit=None, *, raw=None):
        path = folder / "manifest.json"
        value = json.loads(path.read_text())
        for name in value["files"]:
            if (folder / name).is_file():
                data = (folder / name).read_bytes()
                value["files"][name] = {"sha256": sha256(data), "bytes": len(data)}
        value["artifact"].update(value["files"][value["artifact"]["file"]])
        for companion in value["artifact"]["companions"]:
            companion.update(value["files"][companion["file"]])
        if edit is not None:
            edit(value)
        path.write_bytes(json.dumps(value).encode() if raw is None else raw)
        sums = {name: entry["sha256"] for name, entry in value["files"].items()}
        sums["manifest.json"] = sha256(path.read_bytes())
        (folder / "SHA256SUMS").write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))
        return folder

    return write


class FakeRuntime(BaseRuntime):
    """Answers with a function, and remembers what happened to it."""

    def __init__(self, manifest, function, **kwargs):
        super().__init__(Path("fake.bin"), manifest, **kwargs)
        self.function = function
        self.events = []

    def open_impl(self):
        self.events.append("open")
        return RuntimeInfo("fake", "1", "cpu", "fake", self.threads)

    def infer_impl(self, images):
        self.events.append(images)
        return self.function(images)

    def close_impl(self):
        self.events.append("close")


@pytest.fixture(scope="session")
def Fake():
    return FakeRuntime
