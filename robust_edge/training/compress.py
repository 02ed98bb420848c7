"""Algorithm 1, from a config to a finished run.

Source: Marshall 2020, Algorithm 1. Deviation: the last part of the run is masked (hard projection, momentum
cleared, then training under the mask), so that the result lies in S exactly.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from robust_edge.checking.check import require_any_target, require_targets
from robust_edge.config.compress import CompressConfig
from robust_edge.data import Dataset, load_dataset
from robust_edge.data.holdout import hold_out, shortened
from robust_edge.models import ARCHITECTURES, ModelSpec, Normalized, build_model
from robust_edge.models.spec import check_training
from robust_edge.parallel.device import pick_device
from robust_edge.parallel.ranks import Ranks, device_of_rank
from robust_edge.pruning.prunable import budget_of, prunable_parameters, refuse_computed
from robust_edge.pruning.schemes.scheme import Scheme, Weights, kept_in
from robust_edge.run.directory import RESUME, Checkpoint, Run, check_free, create_run, open_run
from robust_edge.training.allocation import keep_freed_memory
from robust_edge.training.closing import give_up
from robust_edge.training.forward import check_compute, fitting, place
from robust_edge.training.initial import Initial, initial_network, opened_initial
from robust_edge.training.learner import Learner
from robust_edge.training.loop import Progress, train
from robust_edge.training.losses import check_ranks
from robust_edge.training.notes import notes_on
from robust_edge.training.quantised import require_quantisable
from robust_edge.training.resuming import Start, read_state, restore
from robust_edge.training.schedules import Schedules, pruned_at, schedules
from robust_edge.training.synchrony import check_batch, check_same_images, replicate
from robust_edge.training.tensorboard import check_installed
from robust_edge_exporters.target import target_named
from robust_edge_exporters.weight_uses import weight_uses
from robust_edge_runtimes.core.decode import decode
from robust_edge_runtimes.core.errors import InputError


def compress(
    config: CompressConfig,
    path: Path,
    *,
    overwrite: bool = False,
    allow_code: bool = False,
    progress: Progress | None = None,
    ranks: Ranks | None = None,
) -> Checkpoint:
    """Train one network into a new run directory.

    Args:
        config: all settings of the run.
        path: the run directory; nothing is written before data, model and constraint have been checked.
        overwrite: whether to replace an older run.
        allow_code: as `open_run`, for the run in `init`.
        progress: called after every batch with (batches done, number of batches, text).
        ranks: the processes that train together; only rank 0 writes.

    Returns:
        The content of checkpoint.json.

    Raises:
        InputError: data, model, device or constraint cannot be used, `path` exists, or another process
            writes it.
        ExportError: the network cannot be exported to one of `targets`, or to any.
        TrainingDiverged: training diverged; the last good network has been written and is marked as diverged.
    """
    ranks = ranks or Ranks()
    ranks.broadcast(lambda: check_free(path, overwrite=overwrite))
    with ranks.locked(path):
        source = ranks.broadcast(lambda: opened_initial(config, path, allow_code))
        device, dataset = _device_and_images(config, ranks)
        initial = initial_network(config, dataset, source, ranks)
        config = dataclasses.replace(config, arch=initial.model.spec.arch)
        learner, plan = _prepare(config, initial, device, ranks)
        run = create_run(path, config, overwrite=overwrite) if ranks.writes else Run(path, config, writes=False)
        run.write_architecture(learner.model)
        held_out = shortened(len(initial.dataset.train), config.selection.held_out)
        for note in (*initial.notes, *notes_on(config), held_out):
            if note is not None:
                run.log(note)
        return train(run, initial.dataset, learner, plan, Start(), progress)


def resume(
    path: Path, *, allow_code: bool = False, progress: Progress | None = None, ranks: Ranks | None = None
) -> Checkpoint:
    """Continue an interrupted run, with the same final weights as without the interruption.

    On GPUs that needs `deterministic`; without it the weights agree up to rounding. A finished run is not changed. The
    random numbers of an epoch depend only on the seed and the epoch; if SIGTERM interrupted an epoch, the state of the
    random generators was saved.

    Args:
        path: the run directory.
        allow_code: as `open_run`.
        progress: as `compress`; first called with the number of batches that earlier processes have done.
        ranks: as `compress`.

    Raises:
        InputError: `path` is not a run, another process writes it, or its saved state does not fit its config, its
            data or this machine.
        TrainingDiverged: training diverged, before the interruption or now.
    """
    ranks = ranks or Ranks()
    with ranks.locked(path):
        run, finished = ranks.broadcast(lambda: _opened(path, allow_code))
        if finished is not None:
            return finished
        run = dataclasses.replace(run, writes=ranks.writes)
        state = ranks.broadcast(lambda: read_state(run))
        device, dataset = _device_and_images(run.config, ranks)
        initial = _interrupted(run, dataset, state, ranks)
        learner, plan = _prepare(run.config, initial, device, ranks)
        run.write_architecture(learner.model)
        dataset = initial.dataset
        start = Start() if state is None else restore(run, dataset, learner, state)
        if start.masked_from is not None and start.masked_from != plan.masked_from:
            plan = pruned_at(plan, run.config, start.masked_from)
        # a process that was killed between writing the two files may have written a row without saving its epoch
        run.write_metrics(ranks.broadcast(run.metrics)[: start.epochs])
        run.log(f"resumed at epoch {start.epochs + 1}")
        return train(run, dataset, learner, plan, start, progress)


def _opened(path: Path, allow_code: bool) -> tuple[Run, Checkpoint | None]:
    """Open a run; return it and its checkpoint, or None if it is not finished. Temporary files are then removed."""
    run = open_run(path, allow_code=allow_code)
    if run.finished:
        checkpoint = run.checkpoint()
        if checkpoint.diverged is not None:
            give_up(run, checkpoint.diverged, checkpoint.epoch)
        return run, checkpoint
    run.tidy()
    return run, None


def _interrupted(run: Run, dataset: Dataset, state: Mapping[str, Any] | None, ranks: Ranks) -> Initial:
    """The network of an interrupted run; what it started from is not needed any more once there is a saved state."""
    if state is None:
        return initial_network(run.config, dataset, opened_initial(run.config, run.path, run.allow_code), ranks)
    if state.get("spec") is None:  # of release 0.1
        return initial_network(dataclasses.replace(run.config, init=None), dataset, None, ranks)
    spec = decode(ModelSpec, state["spec"], where=str(run.path / RESUME))
    if spec.arch != run.config.arch:  # it may name a function, which only the config is checked for
        raise InputError(f"{run.path / RESUME} is of a {spec.arch}, the run of a {run.config.arch}; restore the file")
    torch.manual_seed(run.config.seed)
    model = build_model(spec, run.path)
    return Initial(model, dataset.with_classes(model.spec.classes), None, ())


def _device_and_images(config: CompressConfig, ranks: Ranks) -> tuple[torch.device, Dataset]:
    device = prepare_device(config)
    check_batch(config.training.batch_size, ranks)
    check_ranks(config.training, ranks.world)
    schedules(config)  # lists of another length are refused before the images are read
    dataset = load_dataset(config.data)
    check_same_images(dataset, ranks)
    return device, dataset


def _prepare(config: CompressConfig, initial: Initial, device: torch.device, ranks: Ranks) -> tuple[Learner, Schedules]:
    """Build scheme and schedules for a network, with all checks, before anything is written.

    Args:
        config: the settings of the run.
        initial: the network, on the CPU.
        device: where it is trained.
        ranks: the processes that train together.
    """
    model, dataset, plan = initial.model, initial.dataset, schedules(config)
    if config.sparse or initial.held is not None:
        refuse_computed(weight_uses(model, dataset.shape))
    check_training(model, model.spec)
    _require_targets(config, model, dataset.shape)
    if config.arch not in ARCHITECTURES:
        config = dataclasses.replace(config, compute=fitting(config.compute, model, dataset.shape))
    model = place(model, device, config.compute)
    held = initial.held and {name: kept.to(device) for name, kept in initial.held.items()}
    weights = prunable_parameters(model)
    scheme = config.pruning.build(model, dataset.shape)
    if held and kept_in(held) <= budget_of(weights, config.pruning.keep):
        plan = pruned_at(plan, config, 0)  # nothing else to prune: all epochs train under the mask
    elif config.sparse:
        _check_constraint(scheme, weights, config.pruning.keep, plan)
    if config.selection.held_out:
        hold_out(dataset.train, config.selection.held_out)
    if config.tensorboard:
        check_installed()
    return Learner(replicate(model, device, ranks), config, plan, scheme, ranks, held=held), plan


def _require_targets(config: CompressConfig, model: Normalized, shape: tuple[int, ...]) -> None:
    """Check that the network can be exported where it must be, and trained in integers if it is to be."""
    if config.targets:
        require_targets(model, shape, [target_named(name) for name in config.targets])
    if config.arch in ARCHITECTURES:
        return
    if config.training.quantize != "none":
        require_quantisable(model)
    elif not config.targets:
        require_any_target(model, shape)


def prepare_device(config: CompressConfig) -> torch.device:
    """Choose and check the device of this rank, and set torch's threads, memory and determinism for it."""
    device = device_of_rank(pick_device(config.device))
    if device.type == "cuda":
        torch.cuda.set_device(device)
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # needed for bit-identical matrix products
        torch.backends.cudnn.benchmark = not config.deterministic
    else:
        keep_freed_memory()
    check_compute(config.compute, device)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    # on CPUs the deterministic kernels take no longer, but filling every new tensor with NaN would
    torch.use_deterministic_algorithms(config.deterministic or device.type == "cpu", warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device


def _check_constraint(scheme: Scheme, weights: Weights, keep: float, plan: Schedules) -> None:
    """Raise InputError if the scheme cannot prune the network to `keep` or to a value of `pruning.keep_schedule`."""
    scheme.support(weights, keep)
    for step in sorted(set(plan.keep) - {keep}):
        try:
            scheme.support(weights, step)
        except InputError as cause:
            raise InputError(f"pruning.keep_schedule passes through {step:g} before {keep:g}: {cause}") from cause
