"""How to add a verify mode: one file with a function, one row of a table; everything else follows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.commands import COPIED, ROOT, Finished

pytest.importorskip("onnxruntime", reason="the linear bundle runs on onnxruntime")

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

# One process for all commands, since each would import everything again.
COMMANDS = """
import importlib, json, sys
from click.testing import CliRunner
main = importlib.import_module(sys.argv[1]).main
results = [CliRunner().invoke(main, words) for words in json.load(sys.stdin)]
print(json.dumps([[result.exit_code, result.stdout, result.stderr] for result in results]))
"""


@pytest.fixture(params=["device", "host"])
def command(request, tmp_path):
    """command(*lines): what each line of words does with a copy that has the new file and the new row."""
    host = request.param == "host"
    source = ROOT / ("robust_edge" if host else "runtimes/robust_edge_runtimes")
    package = tmp_path / source.name
    shutil.copytree(source, package, ignore=COPIED)
    modes = package / ("verification/modes" if host else "modes")
    (modes / "toy.py").write_text(TOY)
    table, first = modes / "table.py", "    *DEVICE_MODES,\n" if host else "DEVICE_MODES = (\n"
    assert first in table.read_text()
    module = "robust_edge.verification.modes.toy" if host else "robust_edge_runtimes.modes.toy"
    table.write_text(table.read_text().replace(first, first + ROW.format(module=module)))
    path = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "exporters", ROOT / "runtimes")))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    def run(*lines):
        asked = [sys.executable, "-c", COMMANDS, "robust_edge.cli" if host else "robust_edge_runtimes.cli.main"]
        words = json.dumps([[str(word) for word in line] for line in lines])
        done = subprocess.run(asked, input=words, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return [Finished(*result) for result in json.loads(done.stdout)]

    run.host = host
    return run


def test_help_verdict_and_table_show_the_mode(command, sealed, tmp_path):
    verify, stored, page = ("verify", sealed, "--mode", "toy", "-q"), tmp_path / "verify.json", tmp_path / "report.html"
    lines = [
        ("verify", "--help"),
        (*verify, "-o", stored),
        (*verify, "--percent", 50),
        ("verify", sealed, "--mode", "none"),
    ]
    if command.host:
        few = ("--epochs", 1, "--set", "data.limit_train=100", "--set", "data.limit_test=50", "-q")
        lines += [("doctor",), ("compress", "--preset", "quick", *few, "-o", tmp_path / "run")]
        lines += [("report", tmp_path / "run", "--verify", stored, "-o", page)]
    shown, result, half, unknown, *others = command(*lines)
    text = " ".join(shown.stdout.split())
    assert "toy: every pixel moved up by eps" in text
    assert "Share of eps. [default: 100]" in text
    assert result.returncode == 5, result.stderr  # 60 images cannot show a loss below one point
    assert "toy   brighter eps=0.05" in result.stdout
    (mode,) = json.loads(stored.read_text())["modes"]
    assert (mode["mode"], mode["attack"]["name"], mode["images"]) == ("toy", "brighter", 60)
    assert "toy   brighter eps=0.025" in half.stdout
    assert "'toy'" in unknown.stderr
    if command.host:
        doctor, *trained = others
        assert "toy" in doctor.stdout
        assert [done.returncode for done in trained] == [0, 0], trained
        assert "every pixel moved up by eps" in page.read_text()
