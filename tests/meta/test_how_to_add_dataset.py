"""A data set is one new file: named by its function, or by one row of the table of data sets.

Help texts, the error for an unknown name, JSON records and the report show it; `doctor` does not list data sets.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.commands import COPIED, ROOT, run_lines

DATASET = '''
import torch
from robust_edge.data import Dataset, Split


def load_shades(settings):
    """Dark and bright images of 8×8."""
    random = torch.Generator().manual_seed(0)

    def split(count):
        labels = torch.arange(count) % 2
        images = torch.randint(0, 100, (count, 1, 8, 8), generator=random) + 100 * labels.view(count, 1, 1, 1)
        return Split(images.to(torch.uint8), labels)

    return Dataset("shades", ("dark", "bright"), split(60), split(20))
'''
ROW = '    "shades": Row("robust_edge.data.shades:load_shades", "dark and bright images"),\n'


@pytest.mark.parametrize("way", ["function", "row"])
def test_a_new_data_set(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, name = None, "shades"
    if way == "row":
        package = tmp_path / "package"
        shutil.copytree(ROOT / "robust_edge", package / "robust_edge", ignore=COPIED)
        (package / "robust_edge/data/shades.py").write_text(DATASET)
        table = package / "robust_edge/data/table.py"
        table.write_text(table.read_text().replace("DATASETS = {\n", "DATASETS = {\n" + ROW))
    else:
        name = "my_data:load_shades"
        (tmp_path / "my_data.py").write_text(DATASET)
        monkeypatch.syspath_prepend(tmp_path)
    lines = [
        "compress --help",
        f"compress --dataset {name} --epochs 1 --steps 1 --threads 1 --set training.batch_size=30 -o run",
        "evaluate run --attack fgsm --eps 0.1",
        "report run -o report.html",
    ]
    refused = ("compress --dataset shade -o other",) if way == "row" else ()
    output = run_lines(lines, cwd=tmp_path, package=package, refused=refused)
    if way == "row":
        assert "shades (dark and bright images)" in output
        assert "unknown --dataset 'shade'; did you mean 'shades'?" in output
    assert f"dataset: {name}\n" in (tmp_path / "run/config.yaml").read_text()
    stored = json.loads((tmp_path / "run/checkpoint.json").read_text())
    assert stored["dataset"] == "shades"
    evaluated = json.loads((tmp_path / "run/evaluations/fgsm.json").read_text())
    assert (evaluated["dataset_fingerprint"], evaluated["subset"]["images"]) == (stored["dataset_fingerprint"], 20)
    assert "| small_cnn | shades |" in (tmp_path / "report.md").read_text()
    assert f"dataset: {name}" in (tmp_path / "report.html").read_text()
