"""The pipeline step of examples/ci, run on bundles that pass, that fail, and that are broken."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the bundles of these tests run on onnxruntime")

FOLDER = Path(__file__).parents[2] / "examples/ci"
BIN = Path(sys.executable).parent
needs_commands = pytest.mark.skipif(not (BIN / "robust-edge-device").is_file(), reason="the commands are not installed")


LENIENT = {"MAX_CLEAN_DROP": "7", "MAX_ROBUST_DROP": "7"}  # what 60 images can show


def gate(tmp_path, *words, code, **settings):
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "BENCH_SECONDS": "0.05", **settings}
    command = [str(FOLDER / "gate.sh"), *map(str, words)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def results(folder):
    return [json.loads((folder / name).read_text()) for name in ("verify.json", "bench.json")]


@needs_commands
def test_a_good_bundle_passes(sealed, tmp_path):
    done = gate(tmp_path, sealed, code=0, MAX_P90_MS="1000", **LENIENT)
    assert done.stdout.splitlines()[-1] == "gate: verify exit 0, bench exit 0"
    verdict, timing = results(tmp_path / "gate-out")
    assert verdict["passed"] is True
    assert (timing["max_p90_ms"], timing["over_budget"]) == (1000, [])


@needs_commands
def test_a_slow_bundle_fails_with_value_and_budget(sealed, tmp_path):
    done = gate(tmp_path, sealed, code=1, MAX_P90_MS="0.000001", OUT="kept", **LENIENT)
    assert "FAILED bundle: p90 of one image is 0." in done.stdout
    assert "the budget 1e-06 ms" in done.stdout
    assert done.stdout.splitlines()[-1] == "gate: verify exit 0, bench exit 1"
    assert results(tmp_path / "kept")[1]["over_budget"]


@needs_commands
def test_too_few_images_to_decide_is_5(sealed, tmp_path):
    done = gate(tmp_path, sealed, code=5, MAX_P90_MS="1000")
    assert done.stdout.splitlines()[-1] == "gate: verify exit 5, bench exit 0"


@needs_commands
def test_another_network_fails_and_damage_has_its_own_code(bundle, linear, forge, tmp_path):
    rolled = type(linear)(np.roll(linear.weight, 1, axis=0), linear.bias)
    (bundle / "model.onnx").write_bytes(rolled.program().SerializeToString())
    assert "bench exit 4" in gate(tmp_path, bundle, code=4).stdout  # the hashes do not agree
    forge(bundle)
    assert gate(tmp_path, bundle, code=1).stdout.splitlines()[-1].startswith("gate: verify exit 1")
    assert json.loads((tmp_path / "gate-out/verify.json").read_text())["passed"] is False


@needs_commands
def test_wrong_usage_is_2(sealed, tmp_path):
    assert "usage" in gate(tmp_path, code=2).stderr
    assert "usage" in gate(tmp_path, sealed, sealed, sealed, code=2).stderr
    gate(tmp_path, sealed, code=2, MAX_CLEAN_DROP="many")


def test_the_script_is_clean():
    checker = BIN / "shellcheck"
    if not checker.is_file():
        pytest.skip("shellcheck is not installed; pip install 'robust-edge[dev]'")
    subprocess.run([checker, FOLDER / "gate.sh"], check=True)


def test_the_workflow_is_yaml_whose_commands_exist():
    yaml = pytest.importorskip("yaml", reason="the workflow is YAML")
    pytest.importorskip("torch", reason="the commands of the training side are imported")
    from robust_edge.cli import main

    steps = yaml.safe_load((FOLDER / "github.yml").read_text())["jobs"]["gate"]["steps"]
    lines = [shlex.split(step["run"]) for step in steps if "run" in step]
    assert ["examples/ci/gate.sh", "bundles/candidate", "runs/candidate"] in lines
    commands = [words[1:] for words in lines if words[0] == "robust-edge"]
    assert [words[0] for words in commands] == ["compress", "export", "report"]
    for name, *words in commands:
        command = main.get_command(None, name)
        known = {flag for parameter in command.params for flag in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known
