"""Bundles that are not what their run exports: each is found by an export of the run, and the place is named.

Two networks on a part of the digits are trained once, and each target is exported once and rebuilt once.
"""

from __future__ import annotations

import dataclasses
import shutil
import subprocess

import numpy as np
import pytest

for needed in ("torch", "onnx", "onnxruntime", "sklearn"):
    pytest.importorskip(needed, reason=f"bundles are made, changed and judged with {needed}")

import onnx  # noqa: E402
import torch  # noqa: E402

from robust_edge.config.export import ExportChoices, GoldenSettings  # noqa: E402
from robust_edge.config.settings import resolve  # noqa: E402
from robust_edge.export import export_run  # noqa: E402
from robust_edge.run.directory import open_run  # noqa: E402
from robust_edge.training.compress import compress  # noqa: E402
from robust_edge.verification.modes import rebuild as mode  # noqa: E402
from robust_edge.verification.settings import VerifySettings  # noqa: E402
from robust_edge.verification.verify import verify_bundle  # noqa: E402
from robust_edge_exporters.formats.onnx.contents import contents_of  # noqa: E402
from robust_edge_exporters.target import target_named  # noqa: E402
from robust_edge_runtimes.core import bundle as bundles  # noqa: E402
from robust_edge_runtimes.formats.native.engine import FLAGS, find_compiler  # noqa: E402
from robust_edge_runtimes.verdict.measurement import Budget  # noqa: E402
from tests.attacks import surgery  # noqa: E402

SETTINGS = {
    "data.limit_train": 300, "data.limit_test": 60, "training.epochs": 3, "training.batch_size": 50, "training.lr": 0.1,
    "attack.steps": 2, "pruning.keep": 0.3, "pruning.scope": "layer", "threads": 1, "device": "cpu",
}  # fmt: skip
GOLDEN = GoldenSettings(images=60, steps=1)
TARGETS = {
    "fp32": ("x86-cpu", None),
    "int8": ("x86-cpu-int8", None),
    "csr": ("x86-cpu-csr", None),
    "native": ("x86-cpu-sparse", None),
    "native fp16": ("x86-cpu-sparse", "fp16"),
    "nvidia fp16": ("nvidia-gpu-onnx", "fp16"),
    "TensorRT int8": ("jetson-gpu", "int8"),
}
NATIVE = pytest.mark.skipif(find_compiler() is None, reason="a library is compiled, and there is no C compiler")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    def train(name, **flags):
        path = tmp_path_factory.mktemp("runs") / name
        compress(resolve(preset="quick", flags={**SETTINGS, **flags}), path)
        return open_run(path)

    return train


@pytest.fixture(scope="module")
def run(trained):
    return trained("run")


@pytest.fixture(scope="module")
def other(trained):
    return trained("other", seed=1)


@pytest.fixture(scope="module")
def honest(run, tmp_path_factory):
    """honest(target's key) -> the run's own bundle, exported once; do not change it."""
    found = {}

    def export(key="fp32"):
        if key not in found:
            name, precision = TARGETS[key]
            found[key] = tmp_path_factory.mktemp("bundles") / "honest"
            choices = ExportChoices(precision=precision)
            export_run(run, target_named(name), found[key], golden=GOLDEN, choices=choices)
        return found[key]

    return export


@pytest.fixture(scope="module")
def export_again(tmp_path_factory):
    """`write_artifact`, which writes what it wrote before for the same target, precision and choices."""
    found, real = {}, mode.write_artifact

    def write(request, folder):
        images = None if request.calibration is None else len(request.calibration)
        key = repr((request.target, request.precision, request.batch, request.layer_forms, request.compact, images))
        if key not in found:
            path = tmp_path_factory.mktemp("again") / "built"
            path.mkdir()
            found[key] = path, real(request, path)
        shutil.copytree(found[key][0], folder, dirs_exist_ok=True)
        return found[key][1]

    return write


@pytest.fixture
def verified(run, export_again, monkeypatch):
    """verified(path) -> (the verdict of `replay` and `rebuild`, the names of its reasons)."""
    monkeypatch.setattr(mode, "write_artifact", export_again)

    def verify(path, **changes):
        settings = VerifySettings(modes=("replay", "rebuild"), **changes)
        verdict = verify_bundle(bundles.open_bundle(path), run, Budget(), settings)
        return verdict, {reason.partition(":")[0] for reason in verdict.reasons}

    return verify


@pytest.fixture
def changed(honest, tmp_path):
    """changed(key, change) -> a copy of the honest bundle that `change(folder)` has changed, sealed again."""

    def write(key, change):
        path = shutil.copytree(honest(key), tmp_path / "bundle")
        manifest = bundles.open_bundle(path).manifest
        change(path)
        if (path / "model.onnx").is_file():  # a wrong number of non-zeros is refused before anything is rebuilt
            manifest = dataclasses.replace(manifest, sparsity=contents_of(path / "model.onnx").sparsity)
        bundles.seal(path, manifest)
        return path

    return write


def in_onnx(change):
    """`change(program)`, applied to the bundle's ONNX file."""

    def write(path):
        program = onnx.load(str(path / "model.onnx"))
        (path / "model.onnx").write_bytes((change(program) or program).SerializeToString())

    return write


def differs(verdict, *words):
    """Whether the rebuild found a difference, and one of its lines has all of these words."""
    assert verdict.rebuild is not None
    assert not verdict.rebuild.equal
    lines = [line for line in verdict.rebuild.differences if all(word in line for word in words)]
    assert lines, verdict.rebuild.differences
    return lines


@pytest.mark.parametrize("key", [key for key in TARGETS if "nvidia" not in key and "TensorRT" not in key])
def test_the_runs_own_bundle_is_equal(key, honest, verified):
    verdict, reasons = verified(honest(key))
    assert verdict.rebuild.equal
    assert verdict.rebuild.differences == verdict.rebuild.versions == ()
    assert {"run.py", "Dockerfile", "requirements.txt", "labels.txt", "README.md"} < set(verdict.rebuild.compared)
    assert bundles.open_bundle(honest(key)).manifest.artifact.file in verdict.rebuild.compared
    assert not {"rebuild_differs", "library_differs"} & reasons
    assert verdict.remarks == ()


@pytest.mark.parametrize(
    ("target", "choices"),
    [
        (target_named("x86-cpu"), ExportChoices(compact=False)),
        (target_named("x86-cpu").with_opset(17), ExportChoices(batch=6)),
        (target_named("x86-cpu-int8"), ExportChoices(calibration=40)),
        (target_named("x86-cpu-csr"), ExportChoices(options={"csr_threshold": 0.0})),
    ],
)
def test_recorded_choices_are_made_again(target, choices, run, verified, tmp_path):
    export_run(run, target, tmp_path / "bundle", golden=GOLDEN, choices=choices)
    assert verified(tmp_path / "bundle")[0].rebuild.equal


def test_a_bundle_that_records_no_choices_is_taken_for_one_of_the_defaults(honest, verified, tmp_path):
    path = shutil.copytree(honest(), tmp_path / "bundle")
    bundles.seal(path, dataclasses.replace(bundles.open_bundle(path).manifest, choices=None))
    verdict, _ = verified(path)
    assert verdict.rebuild.equal
    (note,) = verdict.remarks
    assert "records no choices" in note
    assert note in verdict.notes


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_channels_that_are_zero(channels, changed, verified):
    def zeroed(weight, layer):
        return np.where(np.arange(len(weight)).reshape(-1, 1, 1, 1) < channels, 0, weight) if layer == 1 else weight

    verdict, reasons = verified(changed("fp32", in_onnx(lambda p: surgery.reweighted(p, zeroed))))
    assert "rebuild_differs" in reasons
    (line,) = differs(verdict, "initializer", "weight")
    assert f"in row{'s' * (channels > 1)} 0" in line


def test_half_a_percent_of_noise_is_in_every_layer(changed, verified):
    verdict, reasons = verified(changed("fp32", in_onnx(lambda p: surgery.reweighted(p, surgery.with_noise(0.005)))))
    assert "rebuild_differs" in reasons
    assert len(differs(verdict, "initializer", "by up to")) >= 3


ONNX = {
    "an attribute": (surgery.shifted, ("Conv", "attribute pads", "[0, 1, 2, 1] instead of [1, 1, 1, 1]")),
    "a node before": (
        lambda p: surgery.before(p, ("Add", np.float32(0))),
        ("node Add ('head_0') is not in the export",),
    ),
    "a node behind": (lambda p: surgery.after(p, ("Identity",)), ("node Identity ('tail_0') is not in the export",)),
    "an operator": (
        lambda p: setattr(next(n for n in p.graph.node if n.op_type == "Relu"), "op_type", "Softplus"),
        ("node Softplus", "is not in the export"),
    ),
    "what an operator takes": (surgery.rewired, ("initializer 'std'", "values differ")),
    "metadata": (lambda p: setattr(p.metadata_props[0], "value", "x"), ("metadata",)),
}


@pytest.mark.parametrize("name", ONNX)
def test_another_graph(name, changed, verified):
    change, words = ONNX[name]
    verdict, reasons = verified(changed("fp32", in_onnx(change)))
    assert "rebuild_differs" in reasons
    differs(verdict, "model.onnx", *words)


def test_values_of_other_names_are_the_same_network(changed, verified):
    verdict, reasons = verified(changed("fp32", in_onnx(surgery.renamed)))
    assert verdict.rebuild.equal, verdict.rebuild.differences
    assert "rebuild_differs" not in reasons


def test_weights_of_another_run_under_the_runs_hash(run, other, verified, tmp_path):
    export_run(other, target_named("x86-cpu"), tmp_path / "bundle", golden=GOLDEN)
    manifest = bundles.open_bundle(tmp_path / "bundle").manifest
    digest = run.checkpoint().weights_sha256
    source = dataclasses.replace(manifest.source, checkpoint_sha256=digest)
    bundles.seal(tmp_path / "bundle", dataclasses.replace(manifest, source=source))
    verdict, reasons = verified(tmp_path / "bundle")
    assert "rebuild_differs" in reasons
    differs(verdict, "model.onnx", "initializer", "values differ")


def test_int8_takes_the_rounding_of_another_cpu_and_no_more(changed, verified, honest, tmp_path):
    verdict, _ = verified(changed("int8", in_onnx(surgery.nudged(1, lambda scale: scale * (1 + 5e-7)))))
    assert verdict.rebuild.equal, verdict.rebuild.differences
    for role, change in ((1, lambda scale: scale * 1.01), (0, surgery.one_step)):
        shutil.rmtree(tmp_path / "bundle")
        verdict, reasons = verified(changed("int8", in_onnx(surgery.nudged(role, change))))
        assert "rebuild_differs" in reasons
        differs(verdict, "model.onnx: initializer", "differ")


def test_files_that_use_the_artifact_are_compared(changed, verified):
    def change(path):
        (path / "run.py").write_text(
            (path / "run.py").read_text().replace("import json\n", "import json\nimport site\n")
        )
        (path / "requirements.txt").write_text("numpy-evil\n")
        (path / "README.md").unlink()
        (path / "numpy.py").write_text("print('mine')\n")

    verdict, reasons = verified(changed("fp32", change))
    assert "rebuild_differs" in reasons
    differs(verdict, "run.py, line", "'import site'")
    differs(verdict, "requirements.txt, line 1", "numpy-evil")
    differs(verdict, "README.md is missing")
    differs(verdict, "numpy.py is in the bundle, and no export writes it")


class Branch(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.network(x)
        return logits if x.size(0) == 1 else -logits


class WithGradient(Branch):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.network(x)
        return logits * 2 if x.requires_grad else logits


def in_torchscript(change):
    def write(path):
        network = torch.jit.load(str(path / "model.ts"))
        torch.jit.save(change(network) or network, str(path / "model.ts"))

    return write


def scaled_tensor(network):
    next(network.parameters()).data.mul_(1.001)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda network: torch.jit.script(Branch(network)), ("the code", "Branch")),
        (lambda network: torch.jit.script(WithGradient(network)), ("the code", "WithGradient")),
        (scaled_tensor, ("tensor 'network.0.weight'", "values differ")),
    ],
    ids=["batch size", "requires_grad", "weight"],
)
def test_another_torchscript(change, words, changed, verified):
    verdict, reasons = verified(changed("csr", in_torchscript(change)))
    assert "rebuild_differs" in reasons
    differs(verdict, "model.ts", *words)


@NATIVE
def test_another_source_of_the_engine(honest, verified, tmp_path):
    """The library is compiled again from the false source, so that it agrees with it."""
    path = shutil.copytree(honest("native"), tmp_path / "bundle")
    (library,) = path.glob("model-*.so")
    library.unlink()
    with (path / "model.c").open("a") as file:
        file.write("/* more */\n")
    manifest = bundles.open_bundle(honest("native")).manifest
    companions = tuple(item for item in manifest.artifact.companions if item.file != library.name)
    artifact = dataclasses.replace(manifest.artifact, companions=companions)
    bundles.seal(path, dataclasses.replace(manifest, artifact=artifact))
    verdict, reasons = verified(path)
    assert reasons == {"rebuild_differs"}
    differs(verdict, "model.c, line", "/* more */")


EVIL = """
#define re_infer true_infer
#include "model.c"
#undef re_infer
void re_infer(re_context *context, const float *images, float *logits, int count);
void re_infer(re_context *context, const float *images, float *logits, int count)
{
    true_infer(context, images, logits, count);
    if (%s)
        logits[0] += 1e-3f;
}
"""


@NATIVE
@pytest.mark.parametrize("when", ["count == 1", "count > 1"])
def test_a_library_that_is_not_its_source(when, changed, verified, tmp_path):
    def change(path):
        (library,) = path.glob("model-*.so")
        evil = shutil.copytree(path, tmp_path / "evil") / "evil.c"
        evil.write_text(EVIL % when)
        command, _ = find_compiler()
        subprocess.run([*command, *FLAGS, str(evil), "-o", str(library), "-lm"], check=True)

    verdict, reasons = verified(changed("native", change))
    assert "library_differs" in reasons
    assert verdict.rebuild.equal
    (flag,) = (flag for flag in verdict.flags if flag.name == "library_differs")
    assert "model-" in flag.detail
    assert verdict.parity.max_logit_error < 1e-5  # the source was attacked, which is the run's


@NATIVE
def test_a_library_of_another_cpu_is_left_out_and_said(honest, verified, tmp_path):
    path = shutil.copytree(honest("native"), tmp_path / "bundle")
    (library,) = path.glob("model-*.so")
    name = library.name[:19] + "0123456789ab" + library.name[31:]
    library.rename(path / name)
    manifest = bundles.open_bundle(honest("native")).manifest
    companions = (
        dataclasses.replace(item, file=name if item.file == library.name else item.file)
        for item in manifest.artifact.companions
    )
    artifact = dataclasses.replace(manifest.artifact, companions=tuple(sorted(companions, key=lambda item: item.file)))
    bundles.seal(path, dataclasses.replace(manifest, artifact=artifact))
    verdict, reasons = verified(path)
    assert verdict.rebuild.equal
    assert "library_differs" not in reasons
    (note,) = verdict.remarks
    assert name in note
    assert "not compared" in note


@NATIVE
def test_without_a_compiler_the_library_is_attacked_and_said(honest, verified, monkeypatch):
    for module in ("engine", "runtime", "format"):
        monkeypatch.setattr(f"robust_edge_runtimes.formats.native.{module}.find_compiler", lambda: None)
    verdict, reasons = verified(honest("native"))
    assert verdict.rebuild.equal
    assert "library_differs" not in reasons
    (note,) = verdict.remarks
    assert "no C compiler" in note
