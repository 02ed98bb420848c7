"""`make int8`, the README's one command for a sparse network in 8 bits, with a network of two epochs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from robust_edge_runtimes.core.bundle import open_bundle

ROOT = Path(__file__).parents[2]
TRAIN = "--epochs 2 --steps 1 --threads 1 --set data.limit_train=200 --set data.limit_test=50"

pytestmark = pytest.mark.skipif(not (shutil.which("make") and shutil.which("cc")), reason="needs make and a C compiler")


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`make int8` with the commands of this Python's environment."""
    settings = [f"BIN={Path(sys.executable).parent}", "--assume-old", ".venv/.ready", "int8"]
    return subprocess.run(["make", *settings, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_one_command_trains_exports_times_and_judges(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = make(f"OUT={out}", f"TRAIN={TRAIN}", "JUDGE=--max-clean-drop 100 --max-robust-drop 100")
    assert open_bundle(out / "bundle").manifest.target.endswith("-cpu-sparse-int8"), done.stderr
    assert "speed-up" in done.stdout, done.stderr
    assert "all modes" in done.stdout, done.stderr  # whatever the verdict: two epochs may leave nothing to lose


def test_a_folder_of_images_takes_the_place_of_digits() -> None:
    planned = " ".join(make("--dry-run", "DATA=data/cats").stdout.split())
    assert "compress --dataset folder --data-dir data/cats --arch resnet18 --eps 8/255 --scheme block" in planned
    assert "digits" not in planned
