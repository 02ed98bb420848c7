"""The epochs of one run: training, evaluation on held-out images, records, and the state to resume from."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from robust_edge.data import Dataset
from robust_edge.data.holdout import hold_out
from robust_edge.data.stream import source_of
from robust_edge.models import Normalized
from robust_edge.pruning import admm
from robust_edge.run.directory import Checkpoint, Run
from robust_edge.run.metrics import ADMM, DENSE, MASKED, EpochRow
from robust_edge.training.closing import finish, keep_last_good, reestimate_statistics
from robust_edge.training.divergence import divergence, not_finite
from robust_edge.training.epoch import BatchProgress, EpochPart, EpochResult, batch_count, train_epoch
from robust_edge.training.learner import Learner
from robust_edge.training.resuming import Start, state_of
from robust_edge.training.schedules import Schedules, pruned_at
from robust_edge.training.selection import Snapshot, better, evaluate_held_out, guessing_limit, is_due, is_final
from robust_edge.training.speed import Speed
from robust_edge.training.synchrony import check_same
from robust_edge.training.tensorboard import Board
from robust_edge.training.termination import CODE, deferred_termination
from robust_edge_exporters.quantisation import TooFewBits

if TYPE_CHECKING:
    from robust_edge_exporters.native.int8.calibrate import Ranges

Progress = Callable[[int, int, str], None]


def train(
    run: Run, dataset: Dataset, learner: Learner, plan: Schedules, start: Start, progress: Progress | None
) -> Checkpoint:
    """Train the remaining epochs and write the final network.

    Args:
        run: where metrics, log, resume states and the checkpoint are written.
        dataset: the data set of the run.
        learner: the network and its training state, in the state of `start`.
        plan: the schedules.
        start: where training starts: the number of finished epochs and related state.
        progress: called after every batch with (batches done, number of batches, text), and first with the batches of
            earlier processes, if there are any.

    Raises:
        TrainingDiverged: training diverged; the last good network has been written and is marked as diverged.
        SystemExit: SIGTERM interrupted an epoch; its state was saved.
    """
    epochs, config = run.config.training.epochs, run.config
    with _board(run, start.epochs) as board, deferred_termination(learner.ranks) as stop:
        trainer = _Trainer(run, dataset, learner, plan, start, board)
        finished = all(trainer.run_epoch(epoch, progress, stop) for epoch in range(start.epochs, epochs))
    if not finished:
        raise SystemExit(CODE)  # on a rank that got no signal itself
    if not epochs and (config.sparse or learner.pruning.held is not None):
        learner.prune(config.pruning.keep)  # nothing is trained: the projection of the given weights
    network, epoch, ranges = trainer.final_network()
    if ranges is None:  # otherwise it was trained with the statistics that it has
        reestimate_statistics(network, trainer.images, config)
    evaluating = _closing_progress(progress, epochs)
    return learner.ranks.broadcast(
        lambda: finish(run, dataset, learner, network, epoch, ranges=ranges, progress=evaluating)
    )


class _Trainer:
    """Runs the epochs; holds the state that changes from epoch to epoch besides the learner.

    Attributes:
        images: the training images, in batches on the learner's device.
        held_out: held-out training images, on which the best epoch is selected.
        plan: the schedules; the masked phase may start earlier than planned.
        best: the best network so far, if one was evaluated.
        rows: the metrics of the finished epochs.
        speed: of this process; None before its first epoch.
        part: the finished part of the next epoch, if an earlier process was interrupted in it.
        seconds: duration of this part.
        resumed: whether the next epoch is the first one of a process that resumed the run.
    """

    def __init__(
        self, run: Run, dataset: Dataset, learner: Learner, plan: Schedules, start: Start, board: Board | None
    ) -> None:
        self.run, self.dataset, self.learner, self.board = run, dataset, learner, board
        self.config, self.ranks = run.config, learner.ranks
        data = self.config.data
        remaining, held_out = hold_out(dataset.train, self.config.selection.held_out)
        self.images = source_of(
            remaining, learner.device, stays=data.stays(dataset.pixels), workers=self.config.compute.workers
        )
        self.held_out = held_out.to(learner.device)
        self.plan, self.best, self.part, self.seconds = plan, start.best, start.part, start.seconds
        self.resumed = bool(start.epochs) or start.part is not None
        self.speed: Speed | None = None
        self.rows = self.ranks.broadcast(run.metrics)
        self.fingerprint = self.ranks.broadcast(dataset.fingerprint)

    def run_epoch(self, epoch: int, progress: Progress | None, stop: Callable[[], bool]) -> bool:
        """Train, evaluate and record one epoch, counted from 0; return False if `stop` interrupted it."""
        begun = time.monotonic()
        if self.part is None:
            self.plan = _pruned_early(self.plan, self.learner, epoch)
        report = None if progress is None else self._batch_progress(progress, epoch)
        try:
            result = train_epoch(self.learner, self.images, self.plan, epoch, report, part=self.part, stop=stop)
        except TooFewBits as cause:
            problem = f"8 bits became too few in epoch {epoch + 1}: {cause.reason}"
            keep_last_good(self.run, self.dataset, self.learner, self.best, problem)
        check_same(self.learner.state(), self.ranks)
        seconds = self.seconds + time.monotonic() - begun
        self.part, self.seconds = None, 0.0
        if isinstance(result, EpochPart):
            self._save_interrupted(epoch, result, seconds)
            return False
        self._finish_epoch(epoch, result, seconds)
        return True

    def final_network(self) -> tuple[Normalized, int, Ranges | None]:
        """The network to write, the epoch after which it was copied, counted from 1, and its ranges in 8 bits."""
        if self.best is not None and self.best.final:
            return self.best.network(self.learner.model), self.best.epoch, self.best.ranges
        return self.learner.candidate(), self.config.training.epochs, self.learner.candidate_ranges(self.images)

    def _finish_epoch(self, epoch: int, result: EpochResult, seconds: float) -> None:
        classes, held_out = len(self.dataset.classes), len(self.held_out)
        found = self._evaluated(epoch)
        row = _row(epoch, self.plan, result, found, self.learner, len(self.images), seconds)
        problem = divergence([*self.rows, row], self.config, classes, held_out)
        problem = problem or not_finite(self.learner.model, epoch + 1)
        if problem is not None:
            keep_last_good(self.run, self.dataset, self.learner, self.best, problem)
        if found is not None:
            self.best = better(self.best, found, guessing_limit(classes, held_out))
        self.rows.append(row)
        self.run.write_metrics(self.rows)
        self.run.log(_line(row, self.config.training.epochs))
        if self.board is not None:
            self.board.write(row)
        self.run.write_resume(self._state(epoch + 1))

    def _evaluated(self, epoch: int) -> Snapshot | None:
        """The network after this epoch, evaluated on the held-out images by rank 0; None if no evaluation is due."""
        if not is_due(self.config, epoch):
            return None
        network, config = self.learner.candidate(), self.config
        final = is_final(config, self.plan, epoch)
        found = self.ranks.broadcast(
            lambda: evaluate_held_out(network, self.held_out, config, epoch=epoch + 1, final=final)
        )
        return dataclasses.replace(found, ranges=self.learner.candidate_ranges(self.images))

    def _save_interrupted(self, epoch: int, part: EpochPart, seconds: float) -> None:
        self.run.write_unfinished({**self._state(epoch), "part": {**vars(part)}, "seconds": seconds})
        self.run.log(f"epoch {epoch + 1} interrupted by SIGTERM after {part.batches} batches")
        self.ranks.gather(None)  # torchrun ends all ranks when one exits, so all wait until the file is written

    def _state(self, epochs: int) -> dict[str, Any]:
        return state_of(
            self.learner, epochs=epochs, best=self.best, plan=self.plan, dataset_fingerprint=self.fingerprint
        )

    def _batch_progress(self, progress: Progress, epoch: int) -> BatchProgress:
        epochs, images = self.config.training.epochs, len(self.images)
        held_out, first = _held_out(self.rows), 0 if self.part is None else self.part.batches
        total = batch_count(images, self.config.training.batch_size, self.ranks)
        self.speed = speed = self.speed or Speed(images * (epoch + first / total))
        if self.resumed:
            progress(epoch * total + first, epochs * total, f"epoch {epoch + 1} resumed{held_out}")
        self.resumed = False

        def report(done: int, total: int, detail: str) -> None:
            rate = speed.after(images * (epoch + done / total))
            what = f"epoch {epoch + 1} {'' if self.learner.ranges is None else 'in 8 bits '}{detail}"
            progress(epoch * total + done, epochs * total, f"{what}{held_out} {rate:.0f} images/s")

        return report


def _board(run: Run, epochs: int) -> contextlib.AbstractContextManager[Board | None]:
    if run.config.tensorboard and run.writes:
        return Board(run.path, epochs)
    return contextlib.nullcontext()


def _pruned_early(plan: Schedules, learner: Learner, epoch: int) -> Schedules:
    """The schedules with the masked phase moved to this epoch, if the primal residual is at most `admm.prune_when`.

    The kept fraction of the schedule must have reached `pruning.keep`.
    """
    config, state = learner.config, learner.admm
    threshold = config.admm.prune_when
    if threshold is None or state is None or epoch == 0 or epoch >= plan.masked_from:
        return plan
    if plan.keep[epoch - 1] > config.pruning.keep or admm.residuals(state, learner.weights).primal > threshold:
        return plan
    return pruned_at(plan, config, epoch)


def _row(
    epoch: int,
    plan: Schedules,
    result: EpochResult,
    found: Snapshot | None,
    learner: Learner,
    images: int,
    seconds: float,
) -> EpochRow:
    return EpochRow(
        epoch=epoch + 1,
        phase=MASKED if len(plan.eps) > epoch >= plan.masked_from else DENSE if epoch < plan.admm_from else ADMM,
        eps=plan.eps[epoch],
        steps=plan.steps[epoch],
        keep=plan.keep[epoch],
        lr=plan.lr[epoch],
        **dataclasses.asdict(result),
        seconds=round(seconds, 3),
        images=images,
        held_out_clean=None if found is None else found.clean,
        held_out_robust=None if found is None else found.robust,
        awp=learner.awp and learner.config.awp.active_in(epoch, learner.config.training.epochs),
    )


def _held_out(rows: Sequence[EpochRow]) -> str:
    """The last accuracies on held-out images, for the progress line; empty where there are none."""
    for row in reversed(rows):
        if row.held_out_robust is not None and row.held_out_clean is not None:
            return f", held out {row.held_out_clean:.1%} clean {row.held_out_robust:.1%} robust,"
    return ""


def _line(row: EpochRow, epochs: int) -> str:
    held_out = "" if row.held_out_robust is None else f" held out {row.held_out_clean:.4f}/{row.held_out_robust:.4f}"
    clean = "-" if row.clean_accuracy is None else f"{row.clean_accuracy:.4f}"
    return (
        f"epoch {row.epoch}/{epochs} {row.phase} loss {row.loss:.4f} adversarial {row.adversarial_loss:.4f}"
        f" accuracy {clean}/{row.robust_accuracy:.4f}{held_out} nonzero {row.nonzero} {row.seconds}s"
        f" {row.images_per_second:.0f} images/s"
    )


def _closing_progress(progress: Progress | None, epochs: int) -> Callable[[int, int], None] | None:
    if progress is None:
        return None
    return lambda done, total: progress(max(1, epochs), max(1, epochs), f"evaluated on {done} of {total} test images")
