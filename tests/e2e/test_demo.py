"""The demo, run as a user runs it, and everything that is promised of it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file

from robust_edge.export import export_run
from robust_edge.run.directory import open_run
from robust_edge_exporters.native import export_native
from robust_edge_exporters.target import target_named
from robust_edge_runtimes import load, open_bundle
from robust_edge_runtimes.core.bundle import seal
from robust_edge_runtimes.core.golden import expected_of, write_golden
from robust_edge_runtimes.formats.native.engine import find_compiler
from tests.commands import run, run_installed

WEIGHTS = 32 * 9 + 64 * 32 * 9 + 128 * 64 * 9 + 10 * 128


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    summary = json.loads(run_installed("robust-edge", "demo", "--out", out, "--json").stdout)
    (out / "summary.json").write_text(json.dumps(summary))
    return out


def row(demo: Path, network: str) -> dict[str, float]:
    rows = json.loads((demo / "summary.json").read_text())["rows"]
    return next(row for row in rows if row["network"] == network)


def test_the_sparse_network_keeps_exactly_a_tenth_in_both_files(demo: Path) -> None:
    expected = round(0.1 * WEIGHTS)
    tensors = load_file(demo / "runs/robust-sparse/checkpoint.safetensors")
    weights = [tensor for name, tensor in tensors.items() if name.endswith("weight") and tensor.ndim in (2, 4)]
    assert sum(weight.size for weight in weights) == WEIGHTS
    assert sum(np.count_nonzero(weight) for weight in weights) == expected
    program = onnx.load(demo / "bundles/robust-sparse/model.onnx")
    arrays = [numpy_helper.to_array(item) for item in program.graph.initializer]
    exported = [array for array in arrays if array.ndim in (2, 4) and array.size > 10]
    assert sum(array.size for array in exported) == WEIGHTS
    assert sum(np.count_nonzero(array) for array in exported) == expected


def test_accuracies(demo: Path) -> None:
    assert row(demo, "robust-sparse")["clean_accuracy"] >= 0.97
    assert row(demo, "robust-sparse")["robust_accuracy"] >= 0.88
    assert row(demo, "benign-dense")["robust_accuracy"] <= 0.70


def test_the_report_is_one_file(demo: Path) -> None:
    page = (demo / "report.html").read_text()
    assert "robust-sparse" in page
    assert 'src="http' not in page
    assert 'href="http' not in page


def test_verify_passes_the_bundle(demo: Path) -> None:
    bundle, source = demo / "bundles/robust-sparse", demo / "runs/robust-sparse"
    verdict = json.loads(run_installed("robust-edge", "verify", bundle, "--against", source, "--json").stdout)
    assert verdict["passed"]
    assert [mode["mode"] for mode in verdict["modes"]] == ["replay", "blackbox", "surrogate", "whitebox", "difference"]
    assert all(mode["images"] > 300 for mode in verdict["modes"])


@pytest.fixture
def exchanged(demo: Path, tmp_path: Path) -> Path:
    """The benign network's artifact under the sparse bundle's manifest, golden logits and hashes rewritten to match."""
    benign, bundle = tmp_path / "benign", tmp_path / "exchanged"
    export_run(open_run(demo / "runs/benign-dense"), target_named("x86-cpu"), benign)
    shutil.copytree(demo / "bundles/robust-sparse", bundle)
    shutil.copy(benign / "model.onnx", bundle / "model.onnx")
    sparse = open_bundle(demo / "bundles/robust-sparse")
    golden = sparse.golden()
    with load(benign) as model:
        answers = {f"{name}_logits": model.infer(getattr(golden, name)) for name in ("clean", "attacked")}
    own = {f"artifact_{name}": logits for name, logits in answers.items()}
    golden = dataclasses.replace(golden, **answers, **own)
    write_golden(bundle / "golden.npz", golden)
    expected = expected_of(golden, sparse.manifest.expected.attack)
    sparsity = open_bundle(benign).manifest.sparsity
    seal(bundle, dataclasses.replace(sparse.manifest, sparsity=sparsity, expected=expected))
    return bundle


def test_verify_fails_an_exchanged_artifact(demo: Path, exchanged: Path) -> None:
    source = demo / "runs/robust-sparse"
    done = run("robust-edge", "verify", exchanged, "--against", source, "--json", expect=4)
    assert "weights are kept, the run has" in done.stderr


def test_verify_on_the_device_fails_an_exchanged_artifact(demo: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(demo / "bundles/robust-sparse", bundle)
    shutil.copy(demo / "bundles/robust-dense/model.onnx", bundle / "model.onnx")
    seal(bundle, open_bundle(demo / "bundles/robust-sparse").manifest)
    run("robust-edge-device", "verify", bundle, expect=1)


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "golden.npz", "run.py", "labels.txt", "SHA256SUMS"])
def test_one_changed_byte_is_found(demo: Path, tmp_path: Path, name: str) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(demo / "bundles/robust-sparse", bundle)
    blob = bytearray((bundle / name).read_bytes())
    blob[len(blob) // 2] ^= 1
    (bundle / name).write_bytes(blob)
    done = run("robust-edge", "verify", bundle, expect=4)
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr


def test_a_missing_file_and_a_path_outside_are_found(demo: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(demo / "bundles/robust-sparse", bundle)
    (bundle / "labels.txt").unlink()
    run("robust-edge", "verify", bundle, expect=4)
    shutil.copy(demo / "bundles/robust-sparse/labels.txt", bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["../secret"] = manifest["files"]["labels.txt"]
    shutil.copy(bundle / "labels.txt", tmp_path / "secret")
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    assert "inside the bundle" in run("robust-edge", "verify", bundle, expect=4).stderr


WHAT_357_IMAGES_SHOW = ("--max-clean-drop", "1.2", "--max-robust-drop", "1.2")


def test_the_device_commands(demo: Path, tmp_path: Path) -> None:
    bundle = demo / "bundles/robust-sparse"
    golden = open_bundle(bundle).golden()
    np.save(tmp_path / "image.npy", golden.clean[0])
    answer = json.loads(run("robust-edge-device", "predict", bundle, tmp_path / "image.npy", "--json").stdout)
    assert answer[0]["label"] == str(golden.labels[0])
    assert json.loads(run("robust-edge-device", "verify", bundle, *WHAT_357_IMAGES_SHOW, "--json").stdout)["passed"]
    timed = json.loads(run("robust-edge-device", "bench", bundle, "--seconds", "0.1", "--json").stdout)
    assert [latency["images"] for latency in timed["entries"][0]["latencies"]] == [1, 100]
    assert "onnxruntime" in run("robust-edge-device", "doctor").stdout


EMBEDDING = Path(__file__).parents[2] / "examples/embedding"


@pytest.fixture(scope="module")
def pictures(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty test images as files, and how the bundle's own runtime calls them."""
    folder = tmp_path_factory.mktemp("pictures")
    with load(demo / "bundles/robust-sparse") as model:
        clean = open_bundle(demo / "bundles/robust-sparse").golden().clean[:20]
        for i, image in enumerate(clean):
            np.save(folder / f"{i:02}.npy", image)
        (folder / "labels.json").write_text(json.dumps([model.classify(image)[0] for image in clean]))
    return folder


def test_the_embedding_examples_run_on_the_demos_bundle(demo: Path, pictures: Path) -> None:
    """What they do beside that: tests/examples."""
    bundle, labels = demo / "bundles/robust-sparse", json.loads((pictures / "labels.json").read_text())
    words = [sys.executable, EMBEDDING / "classify_folder.py", bundle, pictures]
    rows = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[1:]
    assert [row.split(",")[1] for row in rows] == labels
    words = [sys.executable, EMBEDDING / "camera_loop.py", bundle, "--fps", "50", "--seconds", "0.2"]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout.startswith("10 frames: ")
    words = [sys.executable, EMBEDDING / "serve.py", bundle, "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as service:
        try:
            address = "http://" + service.stdout.readline().rsplit("/", 1)[1].strip()
            images = [np.load(pictures / f"{i:02}.npy").tolist() for i in range(20)]
            body = json.dumps({"images": images}).encode()
            with urllib.request.urlopen(f"{address}/predict", body, timeout=30) as reply:
                assert [item["label"] for item in json.load(reply)["predictions"]] == labels
        finally:
            service.terminate()


def test_the_c_example_runs_on_the_demos_network(demo: Path, tmp_path: Path) -> None:
    found = find_compiler()
    if found is None:
        pytest.skip("there is no C compiler")
    export_native(demo / "bundles/robust-sparse/model.onnx", tmp_path / "native")
    program, native = tmp_path / "classify", tmp_path / "native"
    words = ["-O3", "-I", native, EMBEDDING / "classify.c", native / "model.c", "-o", program, "-lm", "-pthread"]
    subprocess.run([*found[0], "-std=c99", *words], check=True)
    random, pictures = np.random.default_rng(0), []
    for i in range(20):
        pictures.append(random.integers(0, 256, (1, 8, 8), dtype=np.uint8))
        (tmp_path / f"{i:02}.pgm").write_bytes(b"P5 8 8 255\n" + pictures[-1].tobytes())
    paths = sorted(tmp_path.glob("*.pgm"))
    words = [program, native / "weights.bin", demo / "bundles/robust-sparse/labels.txt", *paths]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    with load(demo / "bundles/robust-sparse") as model:
        answers = [model.classify(picture.astype(np.float32) / np.float32(255)) for picture in pictures]
    assert [line.split("  ")[1] for line in lines] == [label for label, _ in answers]


def test_the_gate_of_a_pipeline(demo: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "examples/ci/gate.sh"
    command = [str(script), str(demo / "bundles/robust-sparse"), str(demo / "runs/robust-sparse")]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    settings = {"OUT": str(tmp_path / "gate"), "MAX_P90_MS": "1000", "BENCH_SECONDS": "0.1"}
    environment = {**os.environ, "PATH": path, **settings}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    verdict = json.loads((tmp_path / "gate/verify.json").read_text())
    assert "surrogate" in [mode["mode"] for mode in verdict["modes"]]
    assert 'failures="0"' in (tmp_path / "gate/verify.xml").read_text()
    assert json.loads((tmp_path / "gate/bench.json").read_text())["max_p90_ms"] == 1000


def test_a_second_demo_does_not_touch_the_first(demo: Path) -> None:
    before = sorted(path.name for path in demo.iterdir())
    done = run("robust-edge", "demo", "--out", demo, expect=2)
    assert "--overwrite" in done.stderr
    assert sorted(path.name for path in demo.iterdir()) == before
