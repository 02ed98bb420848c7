"""What a person uses on the device, for every target: it can be read by the oldest Python there, and is linted."""

from __future__ import annotations

import dataclasses
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robust_edge_exporters.artifact import ExportedArtifact
from robust_edge_exporters.device_files import write_readme, write_scripts
from robust_edge_exporters.target import targets
from robust_edge_runtimes.core.manifest import AttackSpec, Expected, LayerCount, Source, Sparsity, TensorSpec
from robust_edge_runtimes.verdict.measurement import Parity

TARGETS = sorted(targets())
FORMATS = sorted({row.format: name for name, row in targets().items()}.values())


def tool(name):
    path = Path(sys.executable).with_name(name)
    if not path.is_file():
        pytest.skip(f"{name} is not installed; pip install 'robust-edge[dev]'")
    return path


@pytest.fixture
def folder(tmp_path):
    """folder(target) -> the written files."""

    def write(name):
        row = targets()[name]
        write_scripts(tmp_path, row, ("cat", "süßer dog"))
        counts = Sparsity(10, 4, (LayerCount("a", 10, 4),))
        ports = TensorSpec("images", (None, 1, 4, 4)), TensorSpec("logits", (None, 2))
        artifact = ExportedArtifact(
            file="m",
            format=row.format,
            precision="fp32",
            input=ports[0],
            output=ports[1],
            sparsity=counts,
            notes=("A note.",),
        )
        source = Source("run", "c" * 64, "net", "digits", "f" * 64, {})
        expected = Expected(50, 0.98, 0.91, AttackSpec("pgd", 0.1, 20, 0.01, 0))
        write_readme(tmp_path, row, source, expected, artifact, Parity(1e-6, 1e-3, 0.995))
        return tmp_path

    return write


def scripts(folder):
    """run.py and what it imports."""
    paths = sorted(folder.glob("*.py"))
    assert folder / "run.py" in paths
    return paths


@pytest.mark.parametrize("name", TARGETS)
def test_scripts_are_clean_for_the_oldest_python_of_any_device(name, folder):
    """Tokens, syntax and modules of Python 3.6, which JetPack 4.6 has."""
    paths = scripts(folder(name))
    for path in paths:
        compile(path.read_text(encoding="utf-8"), str(path), "exec")
    command = [tool("vermin"), "--quiet", "--no-tips", "--violations", "-t=3.6-", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_vermin_would_notice(tmp_path):
    (tmp_path / "new.py").write_text("if (n := 3) > 2:\n    print(f'{n=}')\n")
    command = [tool("vermin"), "--quiet", "--no-tips", "--violations", "-t=3.6-", str(tmp_path / "new.py")]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("name", FORMATS)
def test_scripts_define_every_name_once(name, folder):
    command = [tool("ruff"), "check", "--isolated", "--select", "F82,F811,E9", "--no-cache", *scripts(folder(name))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_dockerfiles_are_linted(folder, tmp_path):
    paths = []
    for name in TARGETS:
        paths.append((folder(name) / "Dockerfile").rename(tmp_path / f"{name}.Dockerfile"))
    done = subprocess.run([tool("hadolint"), *paths], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_hadolint_would_notice(tmp_path):
    (tmp_path / "Dockerfile").write_text("FROM debian:latest\nRUN cd /tmp\n")
    assert subprocess.run([tool("hadolint"), tmp_path / "Dockerfile"], capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("name", TARGETS)
def test_the_readme_has_three_commands_and_every_limit(name, folder):
    row, path = targets()[name], folder(name)
    readme = (path / "README.md").read_text(encoding="utf-8")
    block = readme.split("on the device:\n\n")[1].split("\n\n")[0].splitlines()
    assert len(block) == 3
    assert all(line.startswith("    python3 ") for line in block)
    in_the_system = row.format == "tensorrt" and row.jetpack is not None  # elsewhere pip brings TensorRT
    assert ("build_engine.py" in block[0]) == in_the_system
    assert ("pip install -r requirements.txt" in block[0]) == (not in_the_system)
    assert all(f"- {limit}\n" in readme for limit in (*row.limits, "A note."))
    assert "99.50%" in readme
    assert f"Python {row.python} or newer" in readme
    assert "$" not in readme
    assert f"ARG BASE={row.image}\n" in (path / "Dockerfile").read_text(encoding="utf-8")
    assert (path / "requirements.txt").read_text().splitlines() == list(row.requirements)
    assert (path / "labels.txt").read_text(encoding="utf-8") == "cat\nsüßer dog\n"


def test_each_format_has_its_own_backend(folder):
    texts = {row.format: (folder(name) / "run.py").read_text() for name, row in targets().items()}
    imports = {
        "onnx": "import onnxruntime",
        "onnx-cuda": "CUDAExecutionProvider",
        "csr": "torch.jit.load",
        "native": "engine.Network",
        "tensorrt": "build_engine",
    }
    for artifact_format, mark in imports.items():
        assert mark in texts[artifact_format]
    assert "torch" not in texts["onnx"] + texts["tensorrt"] + texts["native"]
    assert dataclasses.is_dataclass(Parity)


@pytest.mark.parametrize(
    ("precision", "wrong", "passes"), [("int8", 0, True), ("int8", 2, True), ("int8", 3, False), ("fp32", 1, False)]
)
def test_replay_counts_the_images_that_exceed_the_tolerance(precision, wrong, passes, folder, capsys):
    """As `verify` does; a constant that is added to all logits widens nothing."""
    alike = runpy.run_path(str(folder("x86-cpu-int8") / "run.py"))["alike"]
    stored = 1e4 + np.random.default_rng(0).normal(size=(20, 5))
    data = {"clean_logits": stored[:10], "attacked_logits": stored[10:], "tolerance": np.float64(0.2)}
    logits = stored.copy()
    logits[:wrong, 0] += 50
    assert alike(logits, data, precision) == passes
    assert ("exceed" in capsys.readouterr().out) == (wrong > 0)
