"""Evaluations as a user runs them: killed and taken up, on two processes, and from runs to the report's tables."""

from __future__ import annotations

import csv
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.commands import run, run_installed
from tests.short_autoattack import shorten

ROOT = Path(__file__).parents[2]
ENTRY = "from robust_edge.cli import main; main()"
TINY = ["--set", "training.epochs=2", "--set", "training.lr=0.1", "--eps", "0.05", "--keep", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluation") / "net"
    run("robust-edge", "compress", *TINY, "--set", "threads=1", "-o", path)
    return path


def outcome(path: Path) -> tuple[list[str], list[int]]:
    result = json.loads(path.read_text())["result"]
    return result["outcomes"], result["positions"]


@pytest.mark.slow
def test_a_killed_autoattack_goes_on_and_ends_the_same(trained: Path) -> None:
    pytest.importorskip("pyautoattack", reason="the extra `attack` is not installed")
    words = ["evaluate", str(trained), "--attack", "autoattack", "--eps", "0.15", "--limit", "4", "--batch", "2"]
    folder = trained / "evaluations"
    process = subprocess.Popen([sys.executable, "-c", ENTRY, *words, "-q"], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not list(folder.glob(".autoattack.*.state")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "autoattack.json").exists()
    done = run("robust-edge", *words, "--json")
    assert json.loads(done.stdout)["resumed"] >= 1
    assert "resumed from an interrupted evaluation" in done.stderr
    unbroken = trained.parent / "unbroken.json"
    run("robust-edge", *words, "-q", "-o", unbroken)
    assert outcome(folder / "autoattack.json") == outcome(unbroken)
    assert not list(folder.glob(".*"))


def test_torchrun_shares_an_evaluation(trained: Path, tmp_path: Path) -> None:
    words = ["evaluate", str(trained), "--eps", "0.1", "--steps", "5", "--limit", "40", "--batch", "7", "--json"]
    alone = json.loads(run("robust-edge", *words, "-o", tmp_path / "one.json").stdout)
    script = tmp_path / "entry.py"
    script.write_text(ENTRY)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launcher, *words, "-o", str(tmp_path / "two.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert json.loads(done.stdout)["result"] == alone["result"], "one process speaks"
    assert outcome(tmp_path / "two.json") == outcome(tmp_path / "one.json")


def test_memory_stays_under_the_bound_that_is_printed(trained: Path, tmp_path: Path) -> None:
    words = ["evaluate", trained, "--steps", "5", "--memory", "96", "--json", "-o", tmp_path / "m.json"]
    memory = json.loads(run_installed("robust-edge", *words, "--batch", "100000").stdout)["memory"]
    assert memory["before_bytes"] <= memory["peak_bytes"] <= memory["bound_bytes"]
    assert memory["bound_bytes"] - memory["before_bytes"] == 96 << 20
    assert memory["batch_size"] > 100, "the bound, and not the number of images, was the limit"


@pytest.mark.slow
def test_the_example_makes_every_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, where AutoAttack takes a tenth of its iterations."""
    shorten(monkeypatch)
    pytest.importorskip("captum", reason="the extra `interpret` is not installed")
    script = ROOT / "examples/robustness_digits.py"
    options = ["--limit", "2", "--epochs", "2", "--threads", "1", "--out", str(tmp_path / "out")]
    options += ["--networks", "benign-dense", "robust-dense"]
    monkeypatch.setattr(sys, "argv", [str(script), *options])
    runpy.run_path(str(script), run_name="__main__")
    tables = {path.stem for path in (tmp_path / "out").glob("report-*.csv")}
    expected = {"models", "attacks", "autoattack", "thesis-autoattack", "combined", "curve"}
    assert {f"report-{name}" for name in expected} <= tables
    assert sum(name.startswith("report-transfer-1-") for name in tables) == 2
    with (tmp_path / "out/report-thesis-autoattack.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["run"] for row in rows] == ["benign-dense", "robust-dense"]
    for row in rows:
        figures = [float(row[name]) for name in ("benign", "apgd-ce", "apgd-dlr", "fab", "square")]
        assert figures == sorted(figures, reverse=True), "cumulative"
        assert float(row["square low"]) <= figures[-1] <= float(row["square high"])
        assert row["validity flags"]
    page = (tmp_path / "out/report.html").read_text()
    assert "Input gradients of every network" in page
    assert "Attack images made on robust-dense" in (tmp_path / "out/report.md").read_text()
