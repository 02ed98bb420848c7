"""What every evaluation of trained runs begins with: networks that go together, the same images, a batch that fits."""

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
from robust_edge_runtimes.attacks.threat import LINF, Threat
from robust_edge_runtimes.core.errors import InputError

SOFTWARE = ("robust-edge", "torch")  # another version may round otherwise, and begins anew
SHOWN = 60


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Task:
    """Runs that may be compared, loaded, and the images that they are evaluated on.

    Attributes:
        runs: one or several.
        checkpoints: of each run.
        models: of each run, on `device`.
        split: the images, on `device`.
        positions: of the images in the test split.
        subset: the same for the record.
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
        """K."""
        return len(self.checkpoints[0].model.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """Of each run; the path of a run that has the name of an earlier one."""
        names = [run.name for run in self.runs]
        return tuple(str(run.path) if run.name in names[:place] else run.name for place, run in enumerate(self.runs))

    @property
    def dataset_fingerprint(self) -> str:
        """Of the images that all runs share."""
        return self.checkpoints[0].dataset_fingerprint

    @property
    def weights(self) -> tuple[str, ...]:
        """SHA-256 of each run's weights."""
        return tuple(checkpoint.weights_sha256 for checkpoint in self.checkpoints)

    def plan(self, models: Sequence[nn.Module], *, budget_mib: int, most: int) -> Memory:
        """The batch that fits whichever of the networks is attacked."""
        image = self.split.floats(slice(0, 1))
        plans = [plan_memory(model, image, self.classes, budget_mib=budget_mib, most=most) for model in models]
        return min(plans, key=lambda plan: plan.batch_size)

    def identity(self, *what: object) -> str:
        """A short hash of everything that figures depend on: `what` is done, on which networks, images and software."""
        software = {name: version for name, version in versions().items() if name in SOFTWARE}
        values = (what, self.weights, self.dataset_fingerprint, self.positions, software)
        return hashlib.sha256(json.dumps(values, default=str, sort_keys=True).encode()).hexdigest()[:16]


def prepare_task(runs: Sequence[Run], *, limit: int | None, data_dir: str | None, device: str) -> Task:
    """Load.

    Raises:
        InputError: runs of other classes, sizes or images; no images.
    """
    checkpoints = tuple(run.checkpoint() for run in runs)
    _same_images(runs, checkpoints)
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


def check_radius(threat: Threat) -> None:
    """Raise InputError for a radius that allows nothing, or everything in ℓ∞."""
    if threat.eps == 0:
        raise InputError("--eps must be above 0, it is 0; a radius of 0 is no attack")
    if threat.norm == LINF and threat.eps > 1:
        raise InputError(f"--eps must be at most 1 in linf, the range of pixels; it is {threat.eps:g}, 8/255 is usual")


def state_file(out: Path, identity: str, ranks: Ranks, *, fresh: bool) -> Path:
    """Where a campaign keeps what it has done, beside its result; `fresh` forgets what a killed one left there."""
    path = out.with_name(f".{out.stem}.{identity}.state")
    if fresh and ranks.writes:
        path.unlink(missing_ok=True)
    return path


def _same_images(runs: Sequence[Run], checkpoints: Sequence[Checkpoint]) -> None:
    """Raise InputError unless one network's attack images mean something to all others."""
    first = checkpoints[0]
    for run, checkpoint in zip(runs, checkpoints, strict=True):
        for what, mine, theirs in (
            ("classes", checkpoint.model.classes, first.model.classes),
            ("image shape", checkpoint.model.shape, first.model.shape),
            ("test images", checkpoint.dataset_fingerprint[:12], first.dataset_fingerprint[:12]),
        ):
            if mine != theirs:
                raise InputError(
                    f"{run.path} and {runs[0].path} differ in their {what} ({_short(mine)}, {_short(theirs)}), "
                    "so one's attack images say nothing of the other"
                )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
