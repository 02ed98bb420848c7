"""Load the networks and the images of an evaluation, and check that the runs can be compared."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from robust_edge.data import Split
from robust_edge.evaluation.memory import Memory, plan_memory
from robust_edge.evaluation.subset import Subset, choose, subset_of
from robust_edge.parallel.device import pick_device
from robust_edge.parallel.ranks import Ranks, device_of_rank
from robust_edge.run.directory import Checkpoint, Run
from robust_edge.run.environment import versions
from robust_edge.run.images import evaluation_images
from robust_edge_runtimes.core.errors import InputError

SOFTWARE = ("robust-edge", "torch")  # another version may round differently; its state files are not reused
MAX_SHOWN = 60  # characters of a value in an error message


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """The loaded runs of an evaluation and its images.

    Attributes:
        runs: one or several runs with the same classes, image shape and test images.
        checkpoints: the checkpoint of each run.
        models: the network of each run, on `device`.
        device: where the networks and the images are.
        split: the images, on `device`.
        positions: indices of the images in the test split.
        subset: number and selection of the images, for the record.
    """

    runs: tuple[Run, ...]
    checkpoints: tuple[Checkpoint, ...]
    models: tuple[nn.Module, ...]
    device: torch.device
    split: Split
    positions: tuple[int, ...]
    subset: Subset

    @property
    def classes(self) -> int:
        """K, the number of classes."""
        return len(self.checkpoints[0].model.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of each run; its path if an earlier run has the same name."""
        names = [run.name for run in self.runs]
        return tuple(str(run.path) if run.name in names[:place] else run.name for place, run in enumerate(self.runs))

    @property
    def dataset_fingerprint(self) -> str:
        """The fingerprint of the data set that all runs share."""
        return self.checkpoints[0].dataset_fingerprint

    @property
    def weights(self) -> tuple[str, ...]:
        """SHA-256 of each run's weights."""
        return tuple(checkpoint.weights_sha256 for checkpoint in self.checkpoints)

    def plan(self, models: Sequence[nn.Module], *, budget_mib: int, most: int) -> Memory:
        """The smallest batch size that any of the networks needs."""
        image = self.split.floats(slice(0, 1))
        plans = [plan_memory(model, image, self.classes, budget_mib=budget_mib, most=most) for model in models]
        return min(plans, key=lambda plan: plan.batch_size)

    def identity(self, *details: object) -> str:
        """A short hash of everything that results depend on: networks, images, software versions, and `details`."""
        software = {name: version for name, version in versions().items() if name in SOFTWARE}
        values = (details, self.weights, self.dataset_fingerprint, self.positions, software)
        return hashlib.sha256(json.dumps(values, default=str, sort_keys=True).encode()).hexdigest()[:16]


def prepare_task(runs: Sequence[Run], *, limit: int | None, data_dir: str | None, device: str) -> Task:
    """Load the runs and their test images.

    Raises:
        InputError: the runs differ in classes, image shape or test images, or there are no images.
    """
    checkpoints = tuple(run.checkpoint() for run in runs)
    _check_same_images(runs, checkpoints)
    where = device_of_rank(pick_device(device))
    models = tuple(run.load_model().to(where) for run in runs)
    whole = evaluation_images(runs[0], data_dir=data_dir)
    split, positions = choose(whole.to(where), limit)
    return Task(
        runs=tuple(runs),
        checkpoints=checkpoints,
        models=models,
        device=where,
        split=split,
        positions=positions,
        subset=subset_of(split, whole),
    )


def state_file(out: Path, identity: str, ranks: Ranks, *, fresh: bool) -> Path:
    """The path of a campaign's state file, in the folder of `out`; `fresh` removes an existing one."""
    path = out.with_name(f".{out.stem}.{identity}.state")
    if fresh and ranks.writes:
        path.unlink(missing_ok=True)
    return path


def _check_same_images(runs: Sequence[Run], checkpoints: Sequence[Checkpoint]) -> None:
    """Raise InputError unless all networks take the same images and have the same classes."""
    first = checkpoints[0]
    for run, checkpoint in zip(runs, checkpoints, strict=True):
        for what, value, first_value in (
            ("classes", checkpoint.model.classes, first.model.classes),
            ("image shape", checkpoint.model.shape, first.model.shape),
            ("test images", checkpoint.dataset_fingerprint[:12], first.dataset_fingerprint[:12]),
        ):
            if value != first_value:
                raise InputError(
                    f"{run.path} and {runs[0].path} differ in their {what} "
                    f"({_short(value)}, {_short(first_value)}), so they cannot be compared on the same attack images"
                )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
