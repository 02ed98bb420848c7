"""A data set is one new file: named by its function, or by one row of the table of data sets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATASET = '''
import torch
from robust_edge.data import Dataset, Split


def load_shades(config):
    """Dark and bright images of 8×8."""
    random = torch.Generator().manual_seed(0)

    def split(count):
        labels = torch.arange(count) % 2
        images = torch.randint(0, 100, (count, 1, 8, 8), generator=random) + 100 * labels.view(count, 1, 1, 1)
        return Split(images.to(torch.uint8), labels)

    return Dataset("shades", ("dark", "bright"), split(60), split(20))
'''
ROW = '    "shades": Row("robust_edge.data.shades:load_shades", "dark and bright images"),\n'
# One process for all commands, since each would import torch again.
COMMANDS = """
import sys
from click.testing import CliRunner
from robust_edge.cli import main
for line in sys.stdin.read().splitlines():
    result = CliRunner().invoke(main, line.split())
    print(result.output)
    assert result.exit_code == int("shade " in line) * 2, line
"""


@pytest.mark.parametrize("way", ["function", "row"])
def test_a_new_data_set(way: str, tmp_path: Path) -> None:
    package, name = ROOT, "shades"
    if way == "row":
        package = tmp_path / "package"
        shutil.copytree(ROOT / "robust_edge", package / "robust_edge", ignore=shutil.ignore_patterns("__pycache__"))
        (package / "robust_edge/data/shades.py").write_text(DATASET)
        table = package / "robust_edge/data/table.py"
        table.write_text(table.read_text().replace("DATASETS = {\n", "DATASETS = {\n" + ROW))
    else:
        name = "my_data:load_shades"
        (tmp_path / "my_data.py").write_text(DATASET)
    lines = [
        "compress --help",
        f"compress --dataset {name} --epochs 1 --steps 1 --threads 1 --set training.batch_size=30 -o run",
        "report run -o report.html",
        *(["compress --dataset shade -o other"] if way == "row" else []),
    ]
    path = os.pathsep.join(map(str, (package, ROOT / "exporters", ROOT / "runtimes")))
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS], input="\n".join(lines), text=True, cwd=tmp_path, check=False,
        capture_output=True, env={**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "default"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    if way == "row":
        output = " ".join(done.stdout.split())
        assert "shades (dark and bright images)" in output
        assert "unknown --dataset 'shade'; did you mean 'shades'?" in output
    assert f"dataset: {name}\n" in (tmp_path / "run/config.yaml").read_text()
    assert json.loads((tmp_path / "run/checkpoint.json").read_text())["dataset"] == "shades"
    assert f"dataset: {name}" in (tmp_path / "report.html").read_text()
