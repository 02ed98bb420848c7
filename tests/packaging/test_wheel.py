"""The wheel holds what it should, and works on a machine without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from robust_edge_runtimes import open_bundle
from robust_edge_runtimes.formats.native.engine import find_compiler
from tests.commands import run

ROOT = Path(__file__).parents[2]
TOP = {"robust_edge", "robust_edge_exporters", "robust_edge_runtimes"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(command, check=True)
    return next(folder.glob("robust_edge-*.whl"))


@pytest.fixture(scope="module")
def device(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel, numpy, click and onnxruntime."""
    home = tmp_path_factory.mktemp("device") / "venv"
    subprocess.run([sys.executable, "-m", "venv", home], check=True)
    install = [home / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*install, "-c", ROOT / "constraints.txt", f"{wheel}[onnxruntime]"], capture_output=True, text=True, check=False
    )
    if done.returncode and "CI" not in os.environ:
        pytest.skip(f"no package registry reached: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    return home / "bin"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    run("robust-edge", "compress", "--epochs", "2", "--steps", "1", "-q", "-o", folder)
    return folder


def on_device(device: Path, *words: str | Path, cwd: Path, expect: int = 0) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [str(device / str(words[0])), *map(str, words[1:])]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == expect, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def test_contents(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == TOP
    for data in ("config/presets/quick.yaml", "config/presets/thesis.yaml", "targets/x86-cpu.toml", "templates/run.py"):
        assert any(name.endswith(data) for name in names), data
    assert any(name.endswith("LICENSE") for name in names)
    assert not any("test" in name for name in names)


def test_no_training_framework_is_needed(device: Path, tmp_path: Path) -> None:
    freeze = on_device(device, "python", "-m", "pip", "freeze", cwd=tmp_path).lower()
    assert "torch" not in freeze
    assert "onnx==" not in freeze
    assert "missing" in on_device(device, "robust-edge-device", "doctor", cwd=tmp_path)


@pytest.mark.parametrize("target", ["x86-cpu", "x86-cpu-int8", "x86-cpu-sparse"])
def test_the_device_verifies_benches_and_predicts(
    target: str, device: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every artifact that needs no torch, without torch."""
    if target == "x86-cpu-sparse" and find_compiler() is None:
        pytest.skip("there is no C compiler")
    monkeypatch.setenv("ROBUST_EDGE_CACHE", str(tmp_path / "cache"))
    bundle = tmp_path / "bundle"
    run("robust-edge", "export", trained, "--target", target, "-q", "-o", bundle)
    golden = open_bundle(bundle).golden()
    ordered = np.sort(golden.clean_logits, axis=1)
    surest = int((ordered[:, -1] - ordered[:, -2]).argmax())  # 8 bits may decide the others otherwise
    np.save(tmp_path / "image.npy", golden.clean[surest])
    words = ["robust-edge-device", "predict", bundle, "image.npy", "--json"]
    assert json.loads(on_device(device, *words, cwd=tmp_path))[0]["label"] == str(golden.clean_logits[surest].argmax())
    words = ["robust-edge-device", "verify", bundle, "--mode", "replay", "--mode", "blackbox", "--queries", "20"]
    words += ["--max-clean-drop", "20", "--max-robust-drop", "20"]  # the images are few
    verdict = json.loads(on_device(device, *words, "--json", "-q", cwd=tmp_path))
    assert verdict["passed"]
    assert [mode["mode"] for mode in verdict["modes"]] == ["replay", "blackbox"]
    out = tmp_path / "bench.json"
    words = ["robust-edge-device", "bench", bundle, "--seconds", "0.05", "--images", "10", "-o", out]
    on_device(device, *words, cwd=tmp_path)
    assert json.loads(out.read_text())["entries"][0]["latencies"][0]["n"] >= 30


def test_a_training_command_names_the_extra(device: Path, tmp_path: Path) -> None:
    text = on_device(device, "robust-edge", "compress", "-o", "run", cwd=tmp_path, expect=3)
    assert text.count("\n") == 1
    assert "pip install 'robust-edge[train]'" in text
    assert not list(tmp_path.iterdir())
