"""How the cells of a sweep are started."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """How cells are started.

    Attributes:
        folder: for the files of jobs.
        jobs: largest number of cells at a time.
        cores: CPU cores of each cell; None for an equal part of those of this machine.
        gpus: the GPUs, each the value of CUDA_VISIBLE_DEVICES, which the cells take in turns.
        slurm: parameters of submitit for Slurm, such as `partition` and `time`.
    """

    folder: Path
    jobs: int = 1
    cores: int | None = None
    gpus: tuple[str, ...] = ()
    slurm: Mapping[str, str | int] = dataclasses.field(default_factory=dict)

    @property
    def threads(self) -> int:
        """The CPU cores of each cell as a number."""
        return self.cores or max(1, len(available_cores()) // self.jobs)


def available_cores() -> list[int]:
    """The CPU cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
