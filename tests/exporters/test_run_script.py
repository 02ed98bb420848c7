"""run.py, as a stranger would start it: another folder, no project on the path."""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from robust_edge_exporters.bundle import export_bundle
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.preprocessing import Preprocessing
from robust_edge_runtimes.load import load

pytest.importorskip("onnxruntime", reason="an exported bundle is run before it is kept")


@pytest.fixture
def bundle(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "bundle")


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


def test_run_predict_refuses_pictures_of_32_bits_with_2(exported, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="pictures are read with Pillow")
    image.fromarray(np.full((6, 6), 40_000, np.int32)).save(tmp_path / "x.tiff")
    done = started(exported, "predict", "x.tiff", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "more than 16 bits" in done.stderr


def test_run_prepares_a_picture_of_any_size_as_the_runtime_does(request_for, model, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="pictures are read with Pillow")
    rules = Preprocessing(resize=(7,), crop=(6, 6), background=(0, 90, 0))
    bundle = tmp_path / "b"
    assert export_bundle(request_for(model, preprocessing=rules), bundle).manifest.preprocessing == rules
    exif = image.Exif()
    exif[0x0112] = 6
    levels = np.random.default_rng(0).integers(0, 256, (9, 21, 4), dtype=np.uint8)
    image.fromarray(levels).save(tmp_path / "x.png", exif=exif)
    for name in ("x.pgm", "x.f32"):
        done = started(bundle, "prepare", "x.png", name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    with load(bundle) as runtime:
        expected = runtime.read(tmp_path / "x.png")
        label, probability = runtime.classify(expected)
        assert np.array_equal(runtime.read((tmp_path / "x.png").read_bytes()), expected)
    assert np.array_equal(np.fromfile(tmp_path / "x.f32", np.float32).reshape(1, 6, 6), expected)
    with image.open(tmp_path / "x.pgm") as prepared:
        assert np.array_equal(np.asarray(prepared), np.rint(expected[0] * 255))
    done = started(bundle, "predict", "x.png", "x.pgm", cwd=tmp_path)
    assert done.stdout.splitlines() == [f"{name}  {label}  {probability:.3f}" for name in ("x.png", "x.pgm")]


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
    offset = data.index(b"Use this bundle") if name == "run.py" else len(data) // 2  # it has to start to find it
    data[offset] ^= 1
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
    clean, robust, logits, own, verdict = done.stdout.splitlines()
    assert clean.split()[2] == clean.split()[4]
    assert robust.split()[2] == robust.split()[4]
    assert float(logits.split()[2]) >= 1  # more where the logits have a common mean
    assert float(own.split()[1]) >= 1
    assert verdict == "FAIL on 60 images"


@pytest.mark.parametrize("own", ["other", "none"])
def test_run_compares_with_the_artifacts_own_logits_where_the_bundle_has_them(own, bundle, tmp_path):
    """Other logits within the tolerance to the checkpoint; release 0.1 stored none."""
    golden = dict(np.load(bundle / "golden.npz"))
    if own == "other":
        golden["artifact_attacked_logits"] = golden["artifact_attacked_logits"] * np.float32(1.002)
    else:
        golden = {name: value for name, value in golden.items() if not name.startswith("artifact")}
    np.savez(bundle / "golden.npz", **golden)
    resum(bundle)
    done = started(bundle, "replay", cwd=tmp_path)
    assert done.returncode == (1 if own == "other" else 0), done.stderr
    assert ("this file's own" in done.stdout) == (own == "other")


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
