"""Networks on digits in three channels, and what an honest user exports from them; each is made at its first use."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import onnx

from robust_edge.config.export import GoldenSettings
from robust_edge.config.settings import resolve
from robust_edge.export import export_run
from robust_edge.run.directory import Run, open_run
from robust_edge.training.compress import compress
from robust_edge_exporters.target import target_named

MODULE = "coloured_digits"
DATA = """
import torch
from robust_edge.data import Dataset, Split
from robust_edge.data.digits import load_digits

def build(config):
    digits = load_digits(config)
    def coloured(split):
        grey = split.images
        return Split(torch.cat([grey, grey // 2, 16 - grey], 1), split.labels, split.levels)
    return Dataset("coloured digits", digits.classes, coloured(digits.train), coloured(digits.test))
"""
SETTINGS = {
    "data.dataset": f"{MODULE}:build", "threads": 1, "device": "cpu", "attack.eps": 0.1, "attack.steps": 3,
    "training.epochs": 6, "training.batch_size": 50, "training.lr": 0.1, "pruning.keep": 0.5,
    "pruning.scope": "layer",
}  # fmt: skip
ROBUST, BENIGN, OTHER = "robust", "benign", "other"
NETWORKS = {ROBUST: {}, BENIGN: {"attack.eps": 0.0, "training.epochs": 4}, OTHER: {"seed": 1}}
STORED = GoldenSettings(images=200, steps=10)
QUICK = GoldenSettings(images=60, eps=0.1, steps=1)  # for bundles of which only the artifact is used


class Workshop:
    """Runs and bundles in one folder.

    Args:
        folder: an empty folder; `importable` must be entered before the first run is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / f"{MODULE}.py").write_text(DATA)

    @contextlib.contextmanager
    def importable(self) -> Iterator[None]:
        """Let this process import the module that the images come from."""
        sys.path.insert(0, str(self.folder))
        try:
            yield
        finally:
            sys.path.remove(str(self.folder))
            sys.modules.pop(MODULE, None)

    def run(self, name: str = ROBUST) -> Run:
        """The run of a network."""
        path = self.folder / name
        if not path.exists():
            compress(resolve(preset="quick", flags={**SETTINGS, **NETWORKS[name]}), path)
        return open_run(path)

    def bundle(self, target: str = "x86-cpu", name: str = ROBUST, golden: GoldenSettings | None = None) -> Path:
        """An honest bundle; do not change it."""
        golden = golden or (STORED if name == ROBUST else QUICK)
        path = self.folder / "exported" / name / f"{target}-{golden.images}-{golden.steps}"
        if not path.exists():
            export_run(self.run(name), target_named(target), path, golden=golden)
        return path

    def program(self, name: str = ROBUST, target: str = "x86-cpu") -> onnx.ModelProto:
        """The artifact of a network, as a new object."""
        return onnx.load(str(self.bundle(target, name) / "model.onnx"))
