"""Algorithm 1, from a config to a finished run.

Source: Marshall 2020, Algorithm 1. Deviation: the last part of the run is masked (hard projection, momentum
cleared, then training under the fixed mask), so that the result lies in S exactly.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from robust_edge.config.compress import CompressConfig
from robust_edge.data import Dataset, Split, load_dataset
from robust_edge.data.holdout import hold_out
from robust_edge.data.stream import source_of
from robust_edge.models import ModelSpec, build_model
from robust_edge.models.spec import check_training
from robust_edge.parallel.device import pick_device
from robust_edge.parallel.ranks import Ranks, device_of_rank
from robust_edge.pruning import admm
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge.pruning.schemes.scheme import Scheme, Weights
from robust_edge.run.directory import RESUME, Checkpoint, Run, check_free, create_run, open_run
from robust_edge.run.metrics import ADMM, DENSE, MASKED, EpochRow
from robust_edge.training.allocation import keep_freed_memory
from robust_edge.training.closing import finish, give_up, keep_last_good, reestimate_statistics
from robust_edge.training.divergence import divergence, not_finite
from robust_edge.training.epoch import EpochPart, EpochResult, train_epoch
from robust_edge.training.forward import check_compute, place
from robust_edge.training.initial import load_initial
from robust_edge.training.learner import Learner
from robust_edge.training.schedules import Schedules, pruned_at, schedules
from robust_edge.training.selection import Kept, better, due, guessing_limit, judge
from robust_edge.training.synchrony import check_batch, check_same, check_same_images, spread
from robust_edge.training.tensorboard import Board, check_installed
from robust_edge.training.termination import CODE, deferred_termination
from robust_edge_runtimes.core.errors import InputError

Progress = Callable[[int, int, str], None]


def compress(
    config: CompressConfig,
    path: Path,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    ranks: Ranks | None = None,
) -> Checkpoint:
    """Train one network into a new run directory.

    Args:
        config: what to do.
        path: the run directory; nothing is written before data, model and constraint have been checked.
        overwrite: replace an older run.
        progress: called after every batch with (batches done, batches in all, what goes on).
        ranks: the processes that train together; only the first writes.

    Returns:
        What was written to checkpoint.json.

    Raises:
        InputError: data, model, device or constraint cannot be used, or `path` is taken.
        TrainingDiverged: the run keeps the last good network, marked.
    """
    ranks = ranks or Ranks()
    ranks.broadcast(lambda: check_free(path, overwrite=overwrite))
    dataset, learner, plan = _prepare(config, ranks)
    run = create_run(path, config, overwrite=overwrite) if ranks.writes else Run(path, config, writes=False)
    return _train(run, dataset, learner, plan, _Done(0, None), progress)


def resume(path: Path, *, progress: Progress | None = None, ranks: Ranks | None = None) -> Checkpoint:
    """Go on with an interrupted run; a finished one is returned as it is.

    The random state of an epoch follows from the seed and the epoch's number alone, and is saved where SIGTERM left it
    in the middle, so the weights end as those of an unbroken run.
    """
    ranks = ranks or Ranks()
    run, finished = ranks.broadcast(lambda: _opened(path))
    if finished is not None:
        return finished
    run = dataclasses.replace(run, writes=ranks.writes)
    state = ranks.broadcast(lambda: _saved(run))
    dataset, learner, plan = _prepare(run.config, ranks, fresh=state is None)
    done = _Done(0, None) if state is None else _restore(run, dataset, learner, state)
    if done.masked_from is not None and done.masked_from != plan.masked_from:
        plan = pruned_at(plan, run.config, done.masked_from)
    run.write_metrics(ranks.broadcast(run.metrics)[: done.epochs])  # the epoch that was cut short may have left its row
    run.log(f"resumed at epoch {done.epochs + 1}")
    return _train(run, dataset, learner, plan, done, progress)


def _opened(path: Path) -> tuple[Run, Checkpoint | None]:
    """The run, and its checkpoint if it is finished; otherwise what a kill left behind is removed."""
    run = open_run(path)
    if run.finished:
        checkpoint = run.checkpoint()
        if checkpoint.diverged is not None:
            give_up(run, checkpoint.diverged, checkpoint.epoch)
        return run, checkpoint
    run.tidy()
    return run, None


@dataclasses.dataclass(frozen=True, eq=False)
class _Done:
    """Where a run stands.

    Attributes:
        epochs: how many are finished.
        kept: the best network so far, if any was judged.
        masked_from: first epoch of the masked phase if that has begun; None leaves it to the plan.
        part: of the next epoch, if SIGTERM came in its middle.
        seconds: that this part took.
    """

    epochs: int
    kept: Kept | None
    masked_from: int | None = None
    part: EpochPart | None = None
    seconds: float = 0.0


def _saved(run: Run) -> dict[str, Any] | None:
    """What the last finished epoch saved, or the part of the next one that SIGTERM cut short."""
    state, unfinished = run.read_resume(), run.read_unfinished()
    if unfinished is None or unfinished.get("epoch") != (0 if state is None else state.get("epoch")):
        return state  # what is older than the last finished epoch was taken up before
    return unfinished


def _restore(run: Run, dataset: Dataset, learner: Learner, state: dict[str, Any]) -> _Done:
    """Take over what was saved."""
    try:
        kept = None if state["kept"] is None else Kept(**state["kept"])
        part = None if state.get("part") is None else EpochPart(**state["part"])
        done = _Done(int(state["epoch"]), kept, state["masked_from"], part, state.get("seconds", 0.0))
        fingerprint = state["dataset_fingerprint"]
        learner.load_state(state)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as cause:
        reason = " ".join(str(cause).split())[:200]
        raise InputError(
            f"{run.path}/{RESUME} does not fit this run ({reason}); start again with --overwrite"
        ) from cause
    if fingerprint != learner.ranks.broadcast(dataset.fingerprint):
        raise InputError(
            f"the {dataset.name} images found now are not those that {run.path} began with; bring them back, or start "
            "again with --overwrite"
        )
    return done


def _prepare(config: CompressConfig, ranks: Ranks, *, fresh: bool = True) -> tuple[Dataset, Learner, Schedules]:
    """Check and build everything, so that mistakes show before anything is written.

    Args:
        config: of the run.
        ranks: that train together.
        fresh: begin with `config.init`; a run that is taken up again has weights of its own.
    """
    device = device_of_rank(pick_device(config.device))
    if device.type == "cuda":
        torch.cuda.set_device(device)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what torch needs to repeat products to the bit
    else:
        keep_freed_memory()
    check_compute(config.compute, device)
    check_batch(config.training.batch_size, ranks)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    plan = schedules(config)
    dataset = load_dataset(config.data)
    check_same_images(dataset, ranks)
    mean, std = ranks.broadcast(dataset.channel_statistics)
    spec = ModelSpec(arch=config.arch, shape=dataset.shape, classes=dataset.classes, mean=mean, std=std)
    torch.manual_seed(config.seed)
    model = build_model(spec)
    check_training(model, spec)
    if config.init is not None and fresh:
        load_initial(model, Path(config.init))
    model = place(model, device, config.compute)
    scheme = config.pruning.build(model, dataset.shape)
    if config.sparse:
        _check_constraint(scheme, prunable_parameters(model), config.pruning.keep, plan)
    if config.selection.held_out:
        hold_out(dataset.train, config.selection.held_out)
    if config.tensorboard:
        check_installed()
    learner = Learner(spread(model, device, ranks), config, plan, scheme, ranks)
    return dataset, learner, plan


def _check_constraint(scheme: Scheme, weights: Weights, keep: float, plan: Schedules) -> None:
    """Whether the network can lie in S, at the end and on the way there."""
    scheme.support(weights, keep)
    for step in sorted(set(plan.keep) - {keep}):
        try:
            scheme.support(weights, step)
        except InputError as cause:
            raise InputError(f"pruning.keep_schedule passes through {step:g} before {keep:g}: {cause}") from cause


def _train(
    run: Run, dataset: Dataset, learner: Learner, plan: Schedules, done: _Done, progress: Progress | None
) -> Checkpoint:
    config, ranks, rows = run.config, learner.ranks, learner.ranks.broadcast(run.metrics)
    epochs, fingerprint, classes = config.training.epochs, ranks.broadcast(dataset.fingerprint), len(dataset.classes)
    remaining, held_out = hold_out(dataset.train, config.selection.held_out)
    stays, workers = config.data.stays(dataset.pixels), config.compute.workers
    train, held_out = source_of(remaining, learner.device, stays=stays, workers=workers), held_out.to(learner.device)
    kept, part, spent, broken_off = done.kept, done.part, done.seconds, False

    def state(epochs_done: int) -> dict[str, Any]:
        """Everything that `_restore` takes over."""
        saved = None if kept is None else {**vars(kept)}
        begun = None if learner.masks is None else plan.masked_from
        told = {"epoch": epochs_done, "masked_from": begun, "dataset_fingerprint": fingerprint}
        return {**told, "kept": saved, **learner.state()}

    with _board(run, done) as board, deferred_termination(ranks) as asked_to_end:
        for epoch in range(done.epochs, epochs):
            start = time.monotonic()
            if part is None:
                plan = _pruned_early(plan, learner, epoch)
            report = _batch_progress(progress, epoch, epochs, len(train))
            result = train_epoch(learner, train, plan, epoch, report, part=part, stop=asked_to_end)
            check_same(learner.state(), ranks)
            seconds, part, spent = spent + time.monotonic() - start, None, 0.0
            if isinstance(result, EpochPart):
                run.write_unfinished({**state(epoch), "part": {**vars(result)}, "seconds": seconds})
                run.log(f"epoch {epoch + 1} left after {result.batches} batches, as SIGTERM asked")
                ranks.gather(None)  # no rank ends the others before the file is whole
                broken_off = True
                break
            found = _judged(learner, held_out, plan, epoch)
            row = _row(epoch, plan, result, found, learner, len(train), seconds)
            problem = divergence([*rows, row], config, classes) or not_finite(learner.model, epoch + 1)
            if problem is not None:
                keep_last_good(run, dataset, learner, kept, problem)
            if found is not None:
                kept = better(kept, found, guessing_limit(classes, len(held_out)))
            rows.append(row)
            run.write_metrics(rows)
            run.log(_line(row, epochs))
            if board is not None:
                board.write(row)
            run.write_resume(state(epoch + 1))
    if broken_off:
        raise SystemExit(CODE)  # a rank that was not asked itself
    if kept is not None and kept.final:
        chosen, epoch = kept.network(learner.model), kept.epoch
    else:
        chosen, epoch = learner.candidate(), epochs
    reestimate_statistics(chosen, train, config)
    judging = _closing_progress(progress, epochs)
    return ranks.broadcast(lambda: finish(run, dataset, learner, chosen, epoch, progress=judging))


def _board(run: Run, done: _Done) -> contextlib.AbstractContextManager[Board | None]:
    if run.config.tensorboard and run.writes:
        return Board(run.path, done.epochs)
    return contextlib.nullcontext()


def _pruned_early(plan: Schedules, learner: Learner, epoch: int) -> Schedules:
    """The plan, its masked phase beginning now if θ and θ' agree well enough at the kept fraction of the end."""
    config, state = learner.config, learner.admm
    threshold = config.admm.prune_when
    if threshold is None or state is None or epoch == 0 or epoch >= plan.masked_from:
        return plan
    if plan.keep[epoch - 1] > config.pruning.keep or admm.residuals(state, learner.weights).primal > threshold:
        return plan
    return pruned_at(plan, config, epoch)


def _judged(learner: Learner, held_out: Split, plan: Schedules, epoch: int) -> Kept | None:
    """How the network stands after an epoch, where that is due; rank 0 judges for all."""
    config = learner.config
    if not due(config, epoch):
        return None
    final = epoch >= plan.masked_from or not config.sparse
    return learner.ranks.broadcast(lambda: judge(learner.candidate(), held_out, config, epoch=epoch + 1, final=final))


def _row(
    epoch: int, plan: Schedules, result: EpochResult, found: Kept | None, learner: Learner, images: int, seconds: float
) -> EpochRow:
    return EpochRow(
        epoch=epoch + 1,
        phase=DENSE if plan.masked_from == len(plan.eps) else MASKED if epoch >= plan.masked_from else ADMM,
        eps=plan.eps[epoch],
        steps=plan.steps[epoch],
        keep=plan.keep[epoch],
        lr=plan.lr[epoch],
        **dataclasses.asdict(result),
        seconds=round(seconds, 3),
        images=images,
        held_out_clean=None if found is None else found.clean,
        held_out_robust=None if found is None else found.robust,
        awp=learner.awp,
    )


def _line(row: EpochRow, epochs: int) -> str:
    judged = "" if row.held_out_robust is None else f" held out {row.held_out_clean:.4f}/{row.held_out_robust:.4f}"
    return (
        f"epoch {row.epoch}/{epochs} {row.phase} loss {row.loss:.4f} adversarial {row.adversarial_loss:.4f}"
        f" accuracy {row.clean_accuracy:.4f}/{row.robust_accuracy:.4f}{judged} nonzero {row.nonzero} {row.seconds}s"
        f" {row.images_per_second:.0f} images/s"
    )


def _batch_progress(
    progress: Progress | None, epoch: int, epochs: int, images: int
) -> Callable[[int, int, str], None] | None:
    if progress is None:
        return None
    start = time.monotonic()

    def report(done: int, total: int, detail: str) -> None:
        speed = images * done / total / max(time.monotonic() - start, 1e-9)
        progress(epoch * total + done, epochs * total, f"epoch {epoch + 1} {detail} {speed:.0f} images/s")

    return report


def _closing_progress(progress: Progress | None, epochs: int) -> Callable[[int, int], None] | None:
    """The training is over, its last look at the network is not."""
    if progress is None:
        return None
    return lambda done, total: progress(epochs, epochs, f"judged on {done} of {total} test images")
