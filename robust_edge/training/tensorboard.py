"""Writing the metrics of every epoch for TensorBoard (`--tensorboard`)."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

from robust_edge.run.metrics import EpochRow

FOLDER = "tensorboard"


def check_installed() -> None:
    """Raise ModuleNotFoundError where TensorBoard is missing; the command line then names the extra to install."""
    importlib.import_module("tensorboard")


class Board:
    """A writer into RUN/tensorboard, used as a context manager."""

    def __init__(self, run: Path, done: int) -> None:
        """Open the log of a run after `done` epochs; entries of later epochs are discarded."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / FOLDER), purge_step=done + 1)

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.close()

    def write(self, row: EpochRow) -> None:
        """Log every number of the row under its name."""
        values = {**dataclasses.asdict(row), "images_per_second": row.images_per_second}
        for name, value in values.items():
            if isinstance(value, (int, float)) and name != "epoch":
                self._writer.add_scalar(name, value, row.epoch)
        self._writer.flush()
