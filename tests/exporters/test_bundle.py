from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from robust_edge_exporters import bundle as module
from robust_edge_exporters.bundle import export_bundle, refuse_to_replace
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.bundle import open_bundle
from robust_edge_runtimes.errors import ExportError, InputError
from robust_edge_runtimes.load import load
from robust_edge_runtimes.verify import Budget, judge, replay

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

    def write(model, shape, target, folder, settings):
        shutil.copy(exported / "model.onnx", folder)
        return dataclasses.replace(written, precision=settings.precision)

    monkeypatch.setattr(module, "exporter", lambda name: write)


def test_the_bundle_opens_and_passes_its_own_verdict(exported):
    opened = open_bundle(exported)
    with load(opened) as runtime:
        budget = Budget()
        verdict = judge(opened, runtime, [replay(runtime, opened.golden(), opened.manifest.expected.attack)], budget)
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


def test_the_same_export_has_the_same_bytes(exported, request_for, model, tmp_path):
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
    monkeypatch.setitem(module.MAX_LOGIT_ERROR, "fp32", 1e9)
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


STAGES = ("exporter", "write_golden", "write_scripts", "seal", "_checked_parity", "write_readme", "open_bundle")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("after", [0, 1])
def test_an_export_interrupted_at_any_stage_leaves_nothing(
    quick, request_for, model, tmp_path, monkeypatch, stage, after
):
    real = getattr(module, stage)

    def interrupted(*arguments, **options):
        if after:
            real(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, stage, interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(request_for(model), tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_precision_that_the_target_lacks_is_refused_before_anything_is_converted(
    request_for, model, tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "exporter", lambda name: pytest.fail("converted"))
    with pytest.raises(InputError, match="takes no int8: quantised files are a target of their own"):
        export_bundle(request_for(model, precision="int8"), tmp_path / "b")


def test_a_fixed_batch_is_kept_by_run_and_by_the_runtime(request_for, model, images, tmp_path):
    request = request_for(model, batch=7, target=target_named("arm-cpu", "4.6"))
    exported = export_bundle(request, tmp_path / "b")
    assert exported.manifest.input.shape == (7, 1, 6, 6)
    done = started(tmp_path / "b", "replay", cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "PASS on 60 images"), done.stderr
    np.save(tmp_path / "x.npy", images[0])
    done = started(tmp_path / "b", "predict", "x.npy", cwd=tmp_path)
    label = request.classes[int(request.golden.clean_logits[0].argmax())]
    assert done.stdout.split("  ")[1] == label


def test_the_size_is_that_of_the_files(exported):
    import zlib

    manifest, data = open_bundle(exported).manifest, (exported / "model.onnx").read_bytes()
    assert manifest.size.artifact == len(data)
    assert manifest.size.compressed == pytest.approx(len(zlib.compress(data)), rel=0.01)
    assert manifest.size.dense == 4 * manifest.sparsity.weights


def test_a_taken_path_is_refused_before_anything_is_converted(request_for, model, bundle, monkeypatch):
    monkeypatch.setattr(module, "exporter", lambda name: pytest.fail("converted"))
    with pytest.raises(InputError, match="pass --overwrite"):
        export_bundle(request_for(model), bundle)


def test_a_network_that_cannot_be_written_leaves_nothing_behind(request_for, model, tmp_path):
    class Eigen(torch.nn.Module):
        def forward(self, x):
            y = x.flatten(1)
            return torch.linalg.eigvals(y.T @ y).real[None, :4] + y[:, :4]

    refused(dataclasses.replace(request_for(model), model=Eigen().eval()), tmp_path / "b", "cannot be written as ONNX")


# run.py, as a stranger would start it: another folder, no project on the path.


def started(folder, *arguments, cwd):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-W", "error", str(folder / "run.py"), *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_run_replay_passes_and_names_both_accuracies(exported, tmp_path, request_for, model):
    done = started(exported, "replay", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == "PASS on 60 images"
    robust = 100 * request_for(model).expected.robust_accuracy
    assert lines[2].startswith("logits  within ")
    assert lines[1].split() == ["robust", "checkpoint", f"{robust:.1f}%", "here", f"{robust:.1f}%"]


def test_run_needs_nothing_of_this_project(exported, tmp_path):
    """Its imports, and those they bring: no package of ours, no torch."""
    script = (
        "import runpy, sys\n"
        "path, sys.argv = sys.argv[1], ['run.py', 'replay']\n"
        "try:\n"
        "    runpy.run_path(path, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    command = [sys.executable, "-c", script, str(exported / "run.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    imported = set(ast.literal_eval(done.stdout.splitlines()[-1]))
    assert {"numpy", "onnxruntime"} <= imported
    assert not imported & {"robust_edge", "robust_edge_exporters", "robust_edge_runtimes", "torch", "click", "onnx"}


def test_run_predict_agrees_with_the_runtime(exported, images, tmp_path):
    paths = []
    with load(exported) as runtime:
        expected = [runtime.classify(image) for image in images[:3]]
    for i in range(3):
        paths.append(tmp_path / f"{i}.npy")
        np.save(paths[i], images[i])
    done = started(exported, "predict", *paths, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = [f"{path}  {label}  {p:.3f}" for path, (label, p) in zip(paths, expected, strict=True)]
    assert done.stdout.splitlines() == answers


def test_run_predict_reads_pictures(exported, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="pictures are read with Pillow")
    levels = np.random.default_rng(0).integers(0, 256, (6, 6), dtype=np.uint8)
    image.fromarray(levels).save(tmp_path / "x.png")
    np.save(tmp_path / "x.npy", levels[None])
    done = started(exported, "predict", "x.png", "x.npy", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    picture, array = (line.split("  ")[1:] for line in done.stdout.splitlines())
    assert picture == array


def test_run_predict_refuses_pictures_of_16_bits_with_2(exported, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="pictures are read with Pillow")
    image.fromarray(np.full((6, 6), 40_000, np.uint16)).save(tmp_path / "x.png")
    done = started(exported, "predict", "x.png", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "more than 8 bits" in done.stderr


@pytest.mark.parametrize("content", [b"", b"text", None, "wide", "bright", "archive"])
def test_run_predict_refuses_what_is_no_image_with_2(exported, tmp_path, content):
    path = tmp_path / "x.npy"
    if content == "wide":
        np.save(path, np.zeros((1, 6, 7), np.float32))
    elif content == "bright":
        np.save(path, np.full((1, 6, 6), 2, np.float32))
    elif content == "archive":
        shutil.copy(exported / "golden.npz", path)
    elif content is not None:
        path.write_bytes(content)
    done = started(exported, "predict", path, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")


def test_run_bench_prints_both_protocols(exported, tmp_path):
    text = (exported / "run.py").read_text()
    assert "time.perf_counter() + 2" in text
    bundle = shutil.copytree(exported, tmp_path / "b")
    (bundle / "run.py").write_text(text.replace("time.perf_counter() + 2", "time.perf_counter() + 0.05"))
    resum(bundle)
    done = started(bundle, "bench", "--threads", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["1", "100"]
    for line in done.stdout.splitlines():
        words = line.split()
        p50, p90, p99, n = (float(words[i]) for i in (3, 6, 9, 12))
        assert 0 < p50 <= p90 <= p99
        assert n >= 10


def resum(bundle):
    """Renew SHA256SUMS, as one who exchanges files would."""
    names = sorted(path.name for path in bundle.iterdir() if path.name != "SHA256SUMS")
    lines = [f"{hashlib.sha256((bundle / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    (bundle / "SHA256SUMS").write_text("".join(lines))


@pytest.mark.parametrize(
    "name", ["manifest.json", "model.onnx", "golden.npz", "labels.txt", "run.py", "README.md", "SHA256SUMS"]
)
def test_run_finds_a_changed_byte_with_4(bundle, tmp_path, name):
    data = bytearray((bundle / name).read_bytes())
    at = data.index(b"Use this bundle") if name == "run.py" else len(data) // 2  # it has to start to find it
    data[at] ^= 1
    (bundle / name).write_bytes(data)
    done = started(bundle, "replay", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (4, "")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "golden.npz", "labels.txt", "SHA256SUMS"])
def test_run_finds_a_missing_file_with_4(bundle, tmp_path, name):
    (bundle / name).unlink()
    done = started(bundle, "replay", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (4, "")
    assert name in done.stderr


@pytest.mark.parametrize("lines", [0, 1, 4])
def test_run_trusts_no_sums_that_are_cut_short(bundle, tmp_path, lines):
    path = bundle / "SHA256SUMS"
    path.write_text("".join(path.read_text().splitlines(True)[:lines]))
    done = started(bundle, "replay", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (4, "")


def test_run_fails_another_network_with_1(bundle, tmp_path):
    program = onnx.load(str(bundle / "model.onnx"))
    head = next(node for node in program.graph.node if node.op_type == "Gemm")
    for item in program.graph.initializer:
        if item.name in head.input[1:]:
            item.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(item), item.name))
    onnx.save(program, str(bundle / "model.onnx"))
    resum(bundle)
    done = started(bundle, "replay", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == "FAIL on 60 images"


def test_run_fails_a_network_that_answers_as_well_with_other_logits(bundle, tmp_path):
    """Twice the logits: every class and both accuracies stay."""
    program = onnx.load(str(bundle / "model.onnx"))
    head = next(node for node in program.graph.node if node.op_type == "Gemm")
    for item in program.graph.initializer:
        if item.name in head.input[1:]:
            item.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(item), item.name))
    onnx.save(program, str(bundle / "model.onnx"))
    resum(bundle)
    done = started(bundle, "replay", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    clean, robust, logits, verdict = done.stdout.splitlines()
    assert clean.split()[2] == clean.split()[4]
    assert robust.split()[2] == robust.split()[4]
    assert logits.startswith("logits  within 1 of")
    assert verdict == "FAIL on 60 images"


def test_run_whose_reader_has_left_says_nothing(exported, tmp_path):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, str(exported / "run.py"), "replay"]
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_run_on_a_full_disk_says_so_with_2(exported, tmp_path):
    command = [sys.executable, str(exported / "run.py"), "replay"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["predict"],
        ["replay", "more"],
        *(["replay", "--threads", count] for count in ("x", "0", "-1", "1025")),
    ],
)
def test_run_usage_errors_exit_2(exported, tmp_path, arguments):
    done = started(exported, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


def test_run_without_its_backend_exits_3(bundle, tmp_path):
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('no')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, str(bundle / "run.py"), "replay"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "requirements.txt" in done.stderr


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
