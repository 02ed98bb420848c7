"""The metrics written for TensorBoard, with a writer that records its calls, and with the real one where installed."""

import dataclasses
import sys
from types import ModuleType
from typing import ClassVar

import pytest

from robust_edge.run.directory import OWN, open_run
from robust_edge.run.metrics import EpochRow
from robust_edge.training import compress as module
from robust_edge.training.compress import compress, resume


class Notes:
    """Stands for SummaryWriter."""

    opened: ClassVar[list] = []
    scalars: ClassVar[list] = []

    def __init__(self, folder, purge_step):
        Notes.opened.append((folder, purge_step))

    def add_scalar(self, name, value, step):
        Notes.scalars.append((name, value, step))

    def flush(self):
        pass

    def close(self):
        Notes.opened.append("closed")


@pytest.fixture
def notes(monkeypatch):
    stand_in = ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = Notes
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    monkeypatch.setitem(sys.modules, "tensorboard", ModuleType("tensorboard"))
    monkeypatch.setattr(Notes, "opened", [])
    monkeypatch.setattr(Notes, "scalars", [])
    return Notes


class Killed(BaseException):
    """Stands for the end of the process."""


def test_every_number_of_every_epoch_once(tiny, notes, tmp_path):
    path = tmp_path / "run"

    def progress(done, total, text):
        if done == 9:
            raise Killed

    with pytest.raises(Killed):
        compress(tiny({"tensorboard": True}), path, progress=progress)
    resume(path)
    folder = str(path / "tensorboard")
    assert notes.opened == [(folder, 1), "closed", (folder, 3), "closed"]  # the third epoch had begun
    rows = open_run(path).metrics()
    expected = {
        (field.name, row.epoch)
        for row in rows
        for field in dataclasses.fields(EpochRow)
        if field.name not in ("epoch", "phase", "held_out_clean", "held_out_robust")
    } | {("images_per_second", row.epoch) for row in rows}
    assert len(notes.scalars) == len(expected)
    assert {(name, step) for name, _, step in notes.scalars} == expected
    losses = [value for name, value, _ in notes.scalars if name == "loss"]
    assert losses == [row.loss for row in rows]


def test_nothing_is_written_unless_asked_for(tiny, notes, tmp_path):
    compress(tiny({"training.epochs": 1}), tmp_path / "run")
    assert notes.opened == []


@pytest.mark.filterwarnings("ignore")  # of TensorBoard's own dependencies
def test_the_real_writer_leaves_a_file(tiny, tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    module.compress(tiny({"tensorboard": True, "training.epochs": 1}), tmp_path / "run")
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))
    assert {item.name for item in (tmp_path / "run").iterdir()} <= OWN
