"""Save and restore the state of a run, between two epochs or in the middle of one."""

from __future__ import annotations

import dataclasses
from typing import Any

from robust_edge.data import Dataset
from robust_edge.run.directory import RESUME, UNFINISHED, Run
from robust_edge.training.epoch import FIGURES, EpochPart
from robust_edge.training.learner import Learner
from robust_edge.training.schedules import Schedules
from robust_edge.training.selection import Snapshot
from robust_edge_runtimes.core.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Start:
    """The point at which training starts or continues.

    Attributes:
        epochs: number of finished epochs.
        best: the best network so far, if one was evaluated.
        masked_from: first epoch of the masked phase, if that has begun; None for that of the schedules.
        part: the finished part of the next epoch, if SIGTERM interrupted it.
        seconds: duration of this part.
    """

    epochs: int = 0
    best: Snapshot | None = None
    masked_from: int | None = None
    part: EpochPart | None = None
    seconds: float = 0.0


def state_of(
    learner: Learner, *, epochs: int, best: Snapshot | None, plan: Schedules, dataset_fingerprint: str
) -> dict[str, Any]:
    """The state after `epochs` epochs, as `restore` reads it: plain containers and tensors."""
    return {
        "epoch": epochs,
        "masked_from": None if learner.masks is None else plan.masked_from,
        "dataset_fingerprint": dataset_fingerprint,
        "spec": dataclasses.asdict(learner.model.spec) if learner.model.spec is not None else None,
        "kept": None if best is None else {**vars(best)},
        **learner.state(),
    }


def read_state(run: Run) -> dict[str, Any] | None:
    """The state after the last finished epoch, or in the middle of the next one if SIGTERM interrupted it."""
    state, unfinished = run.read_resume(), run.read_unfinished()
    if unfinished is None or unfinished.get("epoch") != (0 if state is None else state.get("epoch")):
        return state  # an interrupted epoch that has been resumed and finished since then
    return unfinished


def restore(run: Run, dataset: Dataset, learner: Learner, state: dict[str, Any]) -> Start:
    """Load a saved state into the learner.

    Raises:
        InputError: the state belongs to another config, to other images, or to another release.
    """
    try:
        best = None if state["kept"] is None else Snapshot(**state["kept"])
        part = None if state.get("part") is None else EpochPart(**state["part"])
        _require_sums(run, part)
        start = Start(int(state["epoch"]), best, state["masked_from"], part, state.get("seconds", 0.0))
        fingerprint = state["dataset_fingerprint"]
        learner.load_state(state)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as cause:
        reason = " ".join(str(cause).split())[:200]
        raise InputError(
            f"{run.path}/{RESUME} does not fit this run ({reason}); start again with `overwrite`"
        ) from cause
    if fingerprint != learner.ranks.broadcast(dataset.fingerprint):
        raise InputError(
            f"the present {dataset.name} images are not those that {run.path} was started with; restore them, or "
            "start again with `overwrite`"
        )
    return start


def _require_sums(run: Run, part: EpochPart | None) -> None:
    """Raise InputError for a part of an epoch with another number of sums, as release 0.1 wrote it."""
    if part is not None and part.sums.shape != (FIGURES,):
        raise InputError(
            f"{run.path / UNFINISHED} has {part.sums.numel()} sums of the metrics, this release needs {FIGURES}: it "
            "was written by another release; delete it to resume after the last finished epoch"
        )
