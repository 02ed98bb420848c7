"""The two examples of pruning in a loop of one's own: the count is exact, and the network is right."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the examples train with torch")
pytest.importorskip("sklearn", reason="the images are scikit-learn's")

EXAMPLES = Path(__file__).parents[2] / "examples"


def result(name: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, int, float]:
    runpy.run_path(str(EXAMPLES / name))
    found = re.search(r"^(\d+) of (\d+) weights kept, accuracy ([\d.]+)$", capsys.readouterr().out, re.MULTILINE)
    assert found is not None
    return int(found[1]), int(found[2]), float(found[3])


def test_pytorch(capsys: pytest.CaptureFixture[str]) -> None:
    kept, total, accuracy = result("pruning_pytorch.py", capsys)
    assert (kept, total) == (603, 6032)
    assert accuracy > 0.85


@pytest.mark.filterwarnings("ignore")  # Lightning's and its dependencies' own
def test_lightning(capsys: pytest.CaptureFixture[str]) -> None:
    from robust_edge.torchvision_compat import torchvision_module

    torchvision_module("models")  # Lightning imports it
    pytest.importorskip("lightning", reason="Lightning is not installed; pip install 'robust-edge[dev]'")
    kept, total, accuracy = result("pruning_lightning.py", capsys)
    assert (kept, total) == (603, 6032)
    assert accuracy > 0.85
