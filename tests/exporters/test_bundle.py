from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess

import numpy as np
import pytest
import torch

from robust_edge_exporters import bundle as module
from robust_edge_exporters import parity
from robust_edge_exporters.bundle import export_bundle, refuse_to_replace
from robust_edge_exporters.formats.onnx.format import OnnxFormat
from robust_edge_exporters.formats.tensorrt.format import TensorRtFormat
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import ExportError, InputError
from robust_edge_runtimes.load import load
from robust_edge_runtimes.modes.replay import replay
from robust_edge_runtimes.modes.settings import ModeSettings
from robust_edge_runtimes.verdict.inspection import inspect_artifact
from robust_edge_runtimes.verdict.judge import judge
from robust_edge_runtimes.verdict.measurement import Budget
from robust_edge_runtimes.verdict.subject import subject_of

pytest.importorskip("onnxruntime", reason="an exported bundle is run before it is kept")


@pytest.fixture
def bundle(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "bundle")


@pytest.fixture
def quick(exported, monkeypatch):
    """The artifact that was exported once, in place of another conversion."""
    manifest = open_bundle(exported).manifest
    written = module.ExportedArtifact(
        file="model.onnx",
        format="onnx",
        precision="fp32",
        input=manifest.input,
        output=manifest.output,
        sparsity=manifest.sparsity,
        opset=manifest.artifact.opset,
        ir_version=manifest.artifact.ir_version,
    )

    def write(self, model, shape, target, folder, settings):
        shutil.copy(exported / "model.onnx", folder)
        return dataclasses.replace(written, precision=settings.precision)

    for row in (OnnxFormat, TensorRtFormat):
        monkeypatch.setattr(row, "export", write)


def test_the_bundle_opens_and_passes_its_own_verdict(exported):
    opened = open_bundle(exported)
    with load(opened) as runtime:
        subject = subject_of(opened, runtime)
        verdict = judge(inspect_artifact(subject), [replay(subject, ModeSettings())], Budget(7, 7))
    assert verdict.passed, verdict.reasons
    assert verdict.parity.max_logit_error <= 1e-5
    assert verdict.parity.argmax_agreement == 1


def test_it_holds_what_a_stranger_needs(exported, request_for, model, x86):
    request = request_for(model)
    names = {path.name for path in exported.iterdir()}
    assert names == {
        *("manifest.json", "model.onnx", "golden.npz", "SHA256SUMS"),
        *("labels.txt", "run.py", "requirements.txt", "Dockerfile", "README.md", "manifest.schema.json"),
    }
    assert (exported / "labels.txt").read_text(encoding="utf-8").splitlines() == list(request.classes)
    assert (exported / "requirements.txt").read_text().splitlines() == list(x86.requirements)
    dockerfile, readme = ((exported / name).read_text(encoding="utf-8") for name in ("Dockerfile", "README.md"))
    assert f"ARG BASE={x86.image}\n" in dockerfile
    assert all(f"- {limit}" in readme for limit in x86.limits)
    assert f"{100 * request.sparsity.keep:.1f}%" in readme
    assert "$" not in dockerfile.replace("${BASE}", "") + readme


def test_the_manifest_is_the_request(exported, request_for, model):
    request, manifest = request_for(model), open_bundle(exported).manifest
    assert manifest.classes == request.classes
    assert manifest.source == request.source
    assert manifest.expected == request.expected
    assert (manifest.sparsity.weights, manifest.sparsity.nonzero) == (
        request.sparsity.weights,
        request.sparsity.nonzero,
    )
    assert manifest.input.shape == (None, *request.shape)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this system")
def test_sha256sum_accepts_it(exported):
    done = subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=exported, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_same_export_has_the_same_bytes(exported, request_for, model, convert_again, tmp_path):
    export_bundle(request_for(model), tmp_path / "again")
    for path in exported.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def refused(request, path, match):
    before = sorted(p.name for p in path.parent.iterdir())
    with pytest.raises(ExportError, match=match):
        export_bundle(request, path, overwrite=True)
    assert sorted(p.name for p in path.parent.iterdir()) == before


@pytest.mark.parametrize("field", ["clean_logits", "attacked_logits"])
@pytest.mark.parametrize("error", [2e-4, 1.0, 1e30])
def test_logits_that_are_not_the_checkpoints_leave_nothing_behind(quick, request_for, model, tmp_path, field, error):
    request = request_for(model)
    logits = getattr(request.golden, field).copy()
    logits[7, 2] += error * np.abs(logits).max()
    golden = dataclasses.replace(request.golden, **{field: logits})
    refused(dataclasses.replace(request, golden=golden), tmp_path / "b", "differs from the checkpoint")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_file_that_only_an_engine_rounds_is_held_to_fp32(quick, request_for, model, tmp_path, precision):
    request = request_for(model, target=target_named("jetson-gpu", "6.2"), precision=precision)
    logits = request.golden.clean_logits * np.float32(1.001)
    golden = dataclasses.replace(request.golden, clean_logits=logits)
    refused(dataclasses.replace(request, golden=golden), tmp_path / "b", r"at most 0\.0001\)")


def test_logits_within_the_limit_are_fine(quick, request_for, model, tmp_path):
    request = request_for(model)
    logits = request.golden.clean_logits + np.float32(5e-5 * np.abs(request.golden.clean_logits).max())
    golden = dataclasses.replace(request.golden, clean_logits=logits)
    found = export_bundle(dataclasses.replace(request, golden=golden), tmp_path / "b")
    assert 4e-5 < found.parity.max_logit_error < 6e-5
    assert open_bundle(found.path).manifest == found.manifest


def test_another_class_on_one_image_is_refused_however_close(quick, request_for, model, tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "logit_tolerance", lambda *_, **__: 1e9)
    request = request_for(model)
    logits = request.golden.attacked_logits.copy()
    best, second = np.argsort(-logits[3])[:2]
    logits[3, [best, second]] = logits[3, [second, best]]
    golden = dataclasses.replace(request.golden, attacked_logits=logits)
    refused(dataclasses.replace(request, golden=golden), tmp_path / "b", "classes agree on 99")


@pytest.mark.parametrize(("weights", "nonzero"), [(1, 0), (0, -1), (-1, 0)])
def test_another_number_of_weights_or_more_non_zeros_are_refused(quick, request_for, model, tmp_path, weights, nonzero):
    request = request_for(model)
    sparsity = dataclasses.replace(
        request.sparsity, weights=request.sparsity.weights + weights, nonzero=request.sparsity.nonzero + nonzero
    )
    refused(dataclasses.replace(request, sparsity=sparsity), tmp_path / "b", "the export changed the network")


def test_an_older_bundle_stays_when_the_new_one_fails(quick, request_for, model, bundle):
    request = request_for(model)
    golden = dataclasses.replace(request.golden, clean_logits=request.golden.clean_logits * 2)
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    refused(dataclasses.replace(request, golden=golden), bundle, "differs from the checkpoint")
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


STAGES = [
    (OnnxFormat, "export"),
    *((module, name) for name in ("write_golden", "write_scripts", "seal", "checked_parity", "write_readme")),
    (module, "open_bundle"),
]


@pytest.mark.parametrize(("owner", "stage"), STAGES)
@pytest.mark.parametrize("after", [0, 1])
def test_an_export_interrupted_at_any_stage_leaves_nothing(
    quick, request_for, model, tmp_path, monkeypatch, owner, stage, after
):
    real = getattr(owner, stage)

    def interrupted(*arguments, **options):
        if after:
            real(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, stage, interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(request_for(model), tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_precision_that_the_target_lacks_is_refused_before_anything_is_converted(
    request_for, model, tmp_path, monkeypatch
):
    monkeypatch.setattr(OnnxFormat, "export", lambda *_: pytest.fail("converted"))
    with pytest.raises(InputError, match="does not support int8: quantised files are a target of their own"):
        export_bundle(request_for(model, precision="int8"), tmp_path / "b")


def test_the_size_is_that_of_the_files(exported):
    import zlib

    manifest, data = open_bundle(exported).manifest, (exported / "model.onnx").read_bytes()
    assert manifest.size.artifact == len(data)
    assert manifest.size.compressed == pytest.approx(len(zlib.compress(data)), rel=0.01)
    assert manifest.size.dense == 4 * manifest.sparsity.weights


def test_a_taken_path_is_refused_before_anything_is_converted(request_for, model, bundle, monkeypatch):
    monkeypatch.setattr(OnnxFormat, "export", lambda *_: pytest.fail("converted"))
    with pytest.raises(InputError, match="pass `overwrite`"):
        export_bundle(request_for(model), bundle)


def test_a_network_that_cannot_be_written_leaves_nothing_behind(request_for, model, tmp_path):
    class Eigen(torch.nn.Module):
        def forward(self, x):
            y = x.flatten(1)
            return torch.linalg.eigvals(y.T @ y).real[None, :4] + y[:, :4]

    refused(dataclasses.replace(request_for(model), model=Eigen().eval()), tmp_path / "b", "cannot be written as ONNX")


def test_the_manifest_is_json_that_any_reader_takes(exported):
    value = json.loads((exported / "manifest.json").read_bytes())
    assert value["classes"][2] == "süd"


@pytest.mark.parametrize("content", ["photo.jpg", "config.yaml"])
def test_overwrite_replaces_nothing_but_bundles(tmp_path, content):
    """A run, or somebody's pictures, under the name that was meant for the bundle."""
    (tmp_path / content).write_text("precious")
    with pytest.raises(InputError, match="replaces bundles only"):
        refuse_to_replace(tmp_path, overwrite=True)
    assert (tmp_path / content).read_text() == "precious"


def test_overwrite_keeps_a_strangers_file_in_a_bundle(sealed, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(sealed, bundle)
    refuse_to_replace(bundle, overwrite=True)
    (bundle / "notes.txt").write_text("precious")
    with pytest.raises(InputError, match=r"notes\.txt"):
        refuse_to_replace(bundle, overwrite=True)
