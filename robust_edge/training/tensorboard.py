"""Every epoch's row for TensorBoard, where that is installed and asked for."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

from robust_edge.run.metrics import EpochRow

FOLDER = "tensorboard"


def check_installed() -> None:
    """Raise ModuleNotFoundError, which the command line turns into the extra's name, before anything is written."""
    importlib.import_module("tensorboard")


class Board:
    """Writes into RUN/tensorboard; use it in a `with` statement."""

    def __init__(self, run: Path, done: int) -> None:
        """Open the board of a run of which `done` epochs are over; what came after them is forgotten."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / FOLDER), purge_step=done + 1)

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def write(self, row: EpochRow) -> None:
        """Every number of the row, by its name."""
        values = {**dataclasses.asdict(row), "images_per_second": row.images_per_second}
        for name, value in values.items():
            if isinstance(value, (int, float)) and name != "epoch":
                self._writer.add_scalar(name, value, row.epoch)
        self._writer.flush()
