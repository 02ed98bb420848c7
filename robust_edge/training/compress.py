"""Algorithm 1, from a config to a finished run.

Source: Marshall 2020, Algorithm 1. Deviation: the last part of the run is masked (hard projection, momentum
cleared, then training under the fixed mask), so that the result lies in S exactly.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robust_edge.attacks.pgd import Pgd
from robust_edge.config import CompressConfig
from robust_edge.data import Dataset, load_dataset
from robust_edge.environment import versions
from robust_edge.evaluation.accuracy import evaluate_pgd
from robust_edge.models import ModelSpec, build_model
from robust_edge.pruning.prunable import budget_of, prunable_parameters, sparsity_of
from robust_edge.pruning.schemes import projection_of
from robust_edge.run import RESUME, Checkpoint, Run, create_run, open_run
from robust_edge.training.device import pick_device
from robust_edge.training.epoch import EpochResult, Learner, train_epoch
from robust_edge.training.initial import load_initial
from robust_edge.training.schedules import Schedules, schedules
from robust_edge_runtimes.errors import InputError

Progress = Callable[[int, int, str], None]
CLOSING_STEPS = 20
CLOSING_LIMIT = 1000


def compress(
    config: CompressConfig, path: Path, *, overwrite: bool = False, progress: Progress | None = None
) -> Checkpoint:
    """Train one network into a new run directory.

    Args:
        config: what to do.
        path: the run directory; nothing is written before data, model and constraint have been checked.
        overwrite: replace an older run.
        progress: called after every batch with (batches done, batches in all, what goes on).

    Returns:
        What was written to checkpoint.json.

    Raises:
        InputError: data, model, device or constraint cannot be used, `path` is taken, or the loss diverged.
    """
    dataset, learner, plan = _prepare(config)
    run = create_run(path, config, overwrite=overwrite)
    return _train(run, dataset, learner, plan, 0, progress)


def resume(path: Path, *, progress: Progress | None = None) -> Checkpoint:
    """Go on with an interrupted run; a finished one is returned as it is.

    The random state of an epoch follows from the seed and the epoch's number alone, so the weights end as
    those of an unbroken run.
    """
    run = open_run(path)
    if run.finished:
        return run.checkpoint()
    run.tidy()
    dataset, learner, plan = _prepare(run.config)
    first = _restore(run, dataset, learner)
    run.write_metrics(run.metrics()[:first])  # the epoch that was cut short may have left its row
    run.log(f"resumed at epoch {first + 1}")
    return _train(run, dataset, learner, plan, first, progress)


def _restore(run: Run, dataset: Dataset, learner: Learner) -> int:
    """Take over what the last finished epoch saved; returns how many epochs are done."""
    state = run.read_resume()
    if state is None:
        return 0
    try:
        first, fingerprint = int(state["epoch"]), state["dataset_fingerprint"]
        learner.load_state(state)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as cause:
        reason = " ".join(str(cause).split())[:200]
        raise InputError(
            f"{run.path}/{RESUME} does not fit this run ({reason}); start again with --overwrite"
        ) from cause
    if fingerprint != dataset_fingerprint(dataset):
        raise InputError(
            f"the {dataset.name} images found now are not those that {run.path} began with; bring them back, or start "
            "again with --overwrite"
        )
    return first


def _prepare(config: CompressConfig) -> tuple[Dataset, Learner, Schedules]:
    """Check and build everything, so that mistakes show before anything is written."""
    device = pick_device(config.device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    plan = schedules(config)
    dataset = load_dataset(config.data)
    mean, std = dataset.channel_statistics()
    spec = ModelSpec(arch=config.arch, shape=dataset.shape, classes=dataset.classes, mean=mean, std=std)
    torch.manual_seed(config.seed)
    model = build_model(spec)
    if config.init is not None:
        load_initial(model, Path(config.init))
    weights = prunable_parameters(model)
    projection_of(config.pruning)(weights, min(plan.keep))
    learner = Learner(model.to(device), config, plan)
    return (
        Dataset(dataset.name, dataset.classes, dataset.train.to(device), dataset.test.to(device)),
        learner,
        plan,
    )


def _train(
    run: Run, dataset: Dataset, learner: Learner, plan: Schedules, first: int, progress: Progress | None
) -> Checkpoint:
    config, rows = run.config, run.metrics()
    epochs, fingerprint = config.training.epochs, dataset_fingerprint(dataset)
    for epoch in range(first, epochs):
        start = time.monotonic()
        report = _batch_progress(progress, epoch, epochs)
        result = train_epoch(learner, dataset.train, plan, epoch, report)
        if not math.isfinite(result.loss):
            raise InputError(
                f"training diverged: the loss of epoch {epoch + 1} is {result.loss}; lower training.lr (it is "
                f"{config.training.lr}) and start again with --overwrite"
            )
        rows.append(_row(epoch, plan, result, time.monotonic() - start))
        run.write_metrics(rows)
        run.log(_line(rows[-1], epochs))
        run.write_resume({"epoch": epoch + 1, "dataset_fingerprint": fingerprint, **learner.state()})
    return _finish(run, dataset, learner)


def _finish(run: Run, dataset: Dataset, learner: Learner) -> Checkpoint:
    config, model = run.config, learner.model
    attack = Pgd(eps=config.attack.eps, steps=CLOSING_STEPS)
    judged = evaluate_pgd(model, dataset.test.first(CLOSING_LIMIT), attack, seed=config.seed)
    last = run.metrics()[-1]

    def describe(sha256: str, tensors: dict[str, Tensor]) -> Checkpoint:
        written = {name: tensors[name] for name in prunable_parameters(model)}
        sparsity = sparsity_of(written)
        if config.sparse and sparsity.nonzero > budget_of(written, config.pruning.keep):
            raise AssertionError(f"{sparsity.nonzero} non-zeros were written, more than keep allows")
        return Checkpoint(
            model=_spec(dataset, config, model.mean, model.std),
            sparsity=sparsity,
            dataset=dataset.name,
            dataset_fingerprint=dataset_fingerprint(dataset),
            seed=config.seed,
            metrics={
                "clean_accuracy": judged.clean.value,
                "robust_accuracy": judged.robust.value,
                "images": float(judged.clean.images),
                "attack_eps": attack.eps,
                "attack_steps": float(attack.steps),
                "train_loss": last["loss"],
            },
            weights_sha256=sha256,
            versions=versions(),
        )

    checkpoint = run.write_checkpoint(model, describe)
    run.log(f"finished: clean {judged.clean.value:.4f}, PGD-{CLOSING_STEPS} {judged.robust.value:.4f}")
    return checkpoint


def _spec(dataset: Dataset, config: CompressConfig, mean: Tensor, std: Tensor) -> ModelSpec:
    flat = [tuple(round(value, 4) for value in part.flatten().tolist()) for part in (mean, std)]
    return ModelSpec(arch=config.arch, shape=dataset.shape, classes=dataset.classes, mean=flat[0], std=flat[1])


def dataset_fingerprint(dataset: Dataset) -> str:
    """The fingerprint of a data set wherever its tensors lie."""
    cpu = torch.device("cpu")
    return Dataset(dataset.name, dataset.classes, dataset.train.to(cpu), dataset.test.to(cpu)).fingerprint()


def _row(epoch: int, plan: Schedules, result: EpochResult, seconds: float) -> dict[str, Any]:
    return {
        "epoch": epoch + 1,
        "phase": "dense" if plan.masked_from == len(plan.eps) else "masked" if epoch >= plan.masked_from else "admm",
        "eps": plan.eps[epoch],
        "steps": plan.steps[epoch],
        "keep": plan.keep[epoch],
        "lr": plan.lr[epoch],
        **dataclasses.asdict(result),
        "seconds": round(seconds, 3),
    }


def _line(row: dict[str, Any], epochs: int) -> str:
    return (
        f"epoch {row['epoch']}/{epochs} {row['phase']} loss {row['loss']:.4f} adversarial {row['adversarial_loss']:.4f}"
        f" accuracy {row['clean_accuracy']:.4f}/{row['robust_accuracy']:.4f} nonzero {row['nonzero']} {row['seconds']}s"
    )


def _batch_progress(progress: Progress | None, epoch: int, epochs: int) -> Callable[[int, int, str], None] | None:
    if progress is None:
        return None
    return lambda done, total, detail: progress(epoch * total + done, epochs * total, f"epoch {epoch + 1} {detail}")
