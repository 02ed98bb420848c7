"""How to add a verify mode: one file with a function, one row of a table; everything else follows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime", reason="the linear bundle runs on onnxruntime")

ROOT = Path(__file__).parents[2]
TOY = '''
"""Mode `toy`: every pixel moved up by eps."""

import numpy as np

from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.core.logits import is_right
from robust_edge_runtimes.modes.settings import ModeOption
from robust_edge_runtimes.verdict.measurement import LOGITS, Measurement

PERCENT = ModeOption("percent", "Share of eps", 100)


def toy(subject, settings, progress=None):
    drawn, clean = subject.images, subject.clean
    eps = subject.eps * settings.options["percent"] / 100
    moved = np.minimum(drawn.images + np.float32(eps), 1)
    right = clean.artifact & is_right(subject.score(moved), drawn.labels)
    attack = AttackSpec("brighter", eps, 1, eps, settings.seed)
    return Measurement(attack, drawn.ids, clean.reference, clean.artifact, right, right, LOGITS)
'''
ROW = """    Mode("toy", "every pixel moved up by eps", "{module}:toy", options=("{module}:PERCENT",)),
"""


@pytest.fixture(params=["device", "host"])
def command(request, tmp_path):
    """command(*arguments): the command line of a copy that has the new file and the new row."""
    host = request.param == "host"
    source = ROOT / ("robust_edge" if host else "runtimes/robust_edge_runtimes")
    package = tmp_path / source.name
    shutil.copytree(source, package, ignore=shutil.ignore_patterns("__pycache__"))
    modes = package / ("verification/modes" if host else "modes")
    (modes / "toy.py").write_text(TOY)
    table, first = modes / "table.py", "    *DEVICE_MODES,\n" if host else "DEVICE_MODES = (\n"
    assert first in table.read_text()
    module = "robust_edge.verification.modes.toy" if host else "robust_edge_runtimes.modes.toy"
    table.write_text(table.read_text().replace(first, first + ROW.format(module=module)))
    code = f"from {'robust_edge.cli' if host else 'robust_edge_runtimes.cli.main'} import main; main()"
    path = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "exporters", ROOT / "runtimes")))

    def run(*arguments):
        asked = [sys.executable, "-c", code, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        return subprocess.run(asked, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)

    run.host = host
    return run


def test_help_verdict_and_table_show_the_mode(command, sealed, tmp_path):
    text = " ".join(command("verify", "--help").stdout.split())
    assert "toy: every pixel moved up by eps" in text
    assert "Share of eps. [default: 100]" in text
    result = command("verify", sealed, "--mode", "toy", "-q", "-o", tmp_path / "verify.json")
    assert result.returncode == 5, result.stderr  # 60 images cannot show a loss below one point
    assert "toy   brighter eps=0.05" in result.stdout
    (mode,) = json.loads((tmp_path / "verify.json").read_text())["modes"]
    assert (mode["mode"], mode["attack"]["name"], mode["images"]) == ("toy", "brighter", 60)
    half = command("verify", sealed, "--mode", "toy", "--percent", 50, "-q")
    assert "toy   brighter eps=0.025" in half.stdout
    assert "'toy'" in command("verify", sealed, "--mode", "none").stderr
    if command.host:
        assert "toy" in command("doctor").stdout
        few = ("--epochs", 1, "--set", "data.limit_train=100", "--set", "data.limit_test=50", "-q")
        assert command("compress", "--preset", "quick", *few, "-o", tmp_path / "run").returncode == 0
        page = tmp_path / "report.html"
        result = command("report", tmp_path / "run", "--verify", tmp_path / "verify.json", "-o", page)
        assert result.returncode == 0, result.stderr
        assert "every pixel moved up by eps" in page.read_text()
