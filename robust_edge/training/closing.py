"""The end of a run: the final evaluation and the checkpoint, also if training diverged."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from robust_edge.attacks.pgd import Pgd
from robust_edge.config.compress import CompressConfig
from robust_edge.data import Dataset, Source, Split
from robust_edge.data.augment import augment
from robust_edge.data.dataset import evenly
from robust_edge.evaluation.accuracy import accuracy_of, attack_split
from robust_edge.evaluation.memory import peak_bytes
from robust_edge.models import Normalized
from robust_edge.pruning.layout import Layout
from robust_edge.pruning.parametrised import materialised
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge.pruning.schemes import scheme_name
from robust_edge.run.directory import Arithmetic, Checkpoint, Run
from robust_edge.run.environment import versions
from robust_edge.run.imported import Imported
from robust_edge.run.per_class import (
    ClassAccuracy,
    balanced_accuracy,
    cause_of,
    describe_classes,
    no_better_than_constant,
    per_class,
)
from robust_edge.training.batchnorm import reestimate
from robust_edge.training.learner import Learner
from robust_edge.training.losses import attack_batch, has_clean_term
from robust_edge.training.selection import Snapshot
from robust_edge_exporters.weight_uses import sparsity_of, weight_uses
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.errors import TrainingDiverged

if TYPE_CHECKING:
    from robust_edge_exporters.native.int8.calibrate import Ranges

CLOSING_STEPS = 20
CLOSING_LIMIT = 1000


def keep_last_good(run: Run, dataset: Dataset, learner: Learner, best: Snapshot | None, problem: str) -> NoReturn:
    """Write the last good network as a checkpoint marked `diverged`, and raise TrainingDiverged on every rank.

    Args:
        run: the run that diverged.
        dataset: its data set.
        learner: its state is replaced by that of the last finished epoch.
        best: the best network on the held-out images; None for the network of the last finished epoch.
        problem: the reason why the run counts as diverged.
    """
    learner.ranks.broadcast(lambda: _write_last_good(run, dataset, learner, best, problem))
    raise AssertionError("rank 0 did not raise")


def _write_last_good(run: Run, dataset: Dataset, learner: Learner, best: Snapshot | None, problem: str) -> NoReturn:
    run.log(f"diverged: {problem}")
    if best is not None:
        network = best.network(learner.model)
        finish(run, dataset, learner, network, best.epoch, ranges=best.ranges, diverged=problem)
        give_up(run, problem, best.epoch)
    state = run.read_resume()
    if state is None:
        give_up(run, problem, None)
    learner.load_state(state)
    finish(run, dataset, learner, learner.candidate(), int(state["epoch"]), ranges=learner.ranges, diverged=problem)
    give_up(run, problem, int(state["epoch"]))


def give_up(run: Run, problem: str, epoch: int | None) -> NoReturn:
    """Raise TrainingDiverged; `epoch` is the epoch of the network in the checkpoint, None if there is none."""
    keeps = (
        "no epoch was finished, so there is no checkpoint"
        if epoch is None
        else f"{run.path} keeps the network after epoch {epoch}, marked as diverged"
    )
    raise TrainingDiverged(
        f"training diverged: {problem}; {keeps}; lower training.lr (it is {run.config.training.lr}) and start again "
        "with `overwrite`"
    )


def reestimate_statistics(network: Normalized, train: Source, config: CompressConfig) -> None:
    """Re-estimate the batch-norm statistics of the final network, in place, on images as in training.

    As in training, attacked and clean images are in one batch, if the loss has a clean term. Frozen statistics stay,
    and those of a network that is written as it was given.
    """
    count = min(config.averaging.reestimate, len(train))
    unchanged = not (config.training.epochs or config.sparse)
    if count < 2 or config.training.freeze_batchnorm or unchanged:
        return
    generator = torch.Generator().manual_seed(config.seed)
    attack, threat = config.attack.pgd(), Threat(config.attack.eps)
    source = copy.deepcopy(network)

    def batches() -> Iterator[Tensor]:
        order = torch.randperm(len(train), generator=generator)[:count]
        # of equal sizes, since all batches have equal weight in the mean; none has a single image
        parts = order.tensor_split(max(1, count // config.training.batch_size))
        for pixels, labels in train.batches(parts):
            images = augment(pixels, config.data.augment, generator)
            attacked = attack_batch(source, images, labels, attack, threat, generator, config.training)
            if attacked is None:
                yield images
            else:
                yield torch.cat([attacked, images]) if has_clean_term(config.training) else attacked

    reestimate(network, batches())


def finish(
    run: Run,
    dataset: Dataset,
    learner: Learner,
    model: Normalized,
    epoch: int,
    *,
    ranges: Ranges | None = None,
    diverged: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Checkpoint:
    """Evaluate the network on test images and write the checkpoint; the sparsity of the written file is checked.

    Args:
        run: where the checkpoint is written.
        dataset: the data set of the run.
        learner: has the scheme and the masks.
        model: the network to write.
        epoch: the epoch after which the network was copied, counted from 1; 0 if none was trained.
        ranges: of its tensors, with which it was trained to compute in 8 bits; None if it was not.
        diverged: why training diverged after that epoch; such a network need not be sparse yet. None if it did not.
        progress: called with (test images evaluated, number of test images).
    """
    config = run.config

    def check(written: dict[str, Tensor]) -> None:
        masked = config.sparse or learner.pruning.held is not None
        problem = learner.violation(written, config.pruning.keep) if masked and diverged is None else None
        assert problem is None, problem

    rows = run.metrics()[:epoch]
    own = {"train_loss": rows[-1].loss} if rows else {}
    checkpoint = write_network(
        run,
        dataset,
        model,
        epoch,
        check=check,
        metrics=own,
        diverged=diverged,
        progress=progress,
        ranges=ranges,
    )
    dense = learner.pruning.scheme.dense_layers
    if config.sparse and dense:
        run.log(f"left dense by scheme {scheme_name(type(config.pruning.scheme))}: {', '.join(dense)}")
    return checkpoint


def write_network(
    run: Run,
    dataset: Dataset,
    model: Normalized,
    epoch: int,
    *,
    check: Callable[[dict[str, Tensor]], None] = lambda _: None,
    metrics: Mapping[str, float] | None = None,
    diverged: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    ranges: Ranges | None = None,
    imported: Imported | None = None,
) -> Checkpoint:
    """Evaluate a network on test images and write the checkpoint of a run.

    Args:
        run, dataset, model, epoch, diverged, progress: as `finish`.
        check: is given the prunable tensors as they were written.
        metrics: further ones for the checkpoint.
        ranges: of the tensors, with which the network was trained to compute in 8 bits; None if it was not.
        imported: where the network is from, if it was not trained here.
    """
    config, spec, model = run.config, model.spec, materialised(model)
    accuracies, rows = _accuracies(model, dataset, config, progress)
    found = weight_uses(model, dataset.shape)

    def describe(sha256: str, tensors: dict[str, Tensor]) -> Checkpoint:
        written = {name: tensors[name] for name in prunable_parameters(model)}
        check(written)
        sparsity = sparsity_of(written)
        cause = cause_of(imported=imported is not None, epoch=epoch, sparsity=sparsity)
        return Checkpoint(
            model=spec,
            sparsity=sparsity,
            dataset=dataset.name,
            dataset_fingerprint=dataset.fingerprint(),
            seed=config.seed,
            metrics={**accuracies, **(metrics or {})},
            weights_sha256=sha256,
            versions=versions(),
            epoch=epoch,
            diverged=diverged,
            arithmetic=_arithmetic(Layout(found.uses), written),
            preprocessing=dataset.preprocessing,
            notes=(*dataset.notes, *no_better_than_constant(rows, cause)),
            per_class=rows,
            ranges=None if ranges is None else dict(ranges),
            imported=imported,
        )

    peak = peak_bytes(model.mean.device)
    run.write_environment(peak_memory_bytes=peak)
    checkpoint = run.write_checkpoint(model, describe)
    for item in found.left_out:
        run.log(f"left out of the count of weights: {item.name}, which {item.reason}")
    classes = describe_classes(checkpoint.per_class, attacked=bool(config.attack.eps))
    for note in (*checkpoint.notes, classes):
        run.log(f"note: {note}")
    _log(run, checkpoint, peak)
    return checkpoint


def _accuracies(
    model: Normalized, dataset: Dataset, config: CompressConfig, progress: Callable[[int, int], None] | None
) -> tuple[dict[str, float], tuple[ClassAccuracy, ...]]:
    """Accuracies on test images and the attack of the robust ones, over all images and class by class."""
    attack, threat = Pgd(steps=CLOSING_STEPS, restarts=1), Threat(config.attack.eps)
    images = _closing_images(dataset.test).to(model.mean.device)
    attacked = attack_split(model, images, attack, threat, seed=config.seed, progress=progress)
    clean, robust = accuracy_of(attacked.clean), accuracy_of(attacked.robust)
    rows = per_class(dataset.classes, images.labels.cpu(), attacked.clean, attacked.robust)
    balanced_clean, balanced_robust = balanced_accuracy(rows)
    accuracies = {
        "clean_accuracy": clean.value,
        "robust_accuracy": robust.value,
        "balanced_clean_accuracy": balanced_clean,
        "balanced_robust_accuracy": balanced_robust,
        "images": float(clean.images),
        "attack_eps": threat.eps,
        "attack_steps": float(attack.steps),
    }
    return accuracies, rows


def _log(run: Run, checkpoint: Checkpoint, peak: int) -> None:
    """Write the sparsity of every layer and the accuracies to the log; `peak` is in bytes."""
    for layer in checkpoint.sparsity.layers:
        run.log(f"{layer.name}: {layer.nonzero} of {layer.weights} weights non-zero ({layer.keep:.2%})")
    ended, metrics = "finished" if checkpoint.diverged is None else "kept", checkpoint.metrics
    origin = checkpoint.imported
    what = f"{ended}: epoch {checkpoint.epoch}" if origin is None else f"imported: {origin.file}"
    attacked = f"PGD-{CLOSING_STEPS} {metrics['robust_accuracy']:.4f}" if metrics["attack_eps"] else "not attacked"
    run.log(f"{what}, clean {metrics['clean_accuracy']:.4f}, {attacked}, peak memory {peak >> 20} MiB")


def _arithmetic(layout: Layout, written: dict[str, Tensor]) -> Arithmetic:
    dense = {name: torch.ones_like(weight) for name, weight in written.items()}
    return Arithmetic(layout.macs(dense), layout.macs(written))


def _closing_images(test: Split) -> Split:
    """All test images, or CLOSING_LIMIT of them, with equal numbers of each class as far as possible."""
    return test if len(test) <= CLOSING_LIMIT else test.take(evenly(test.labels, CLOSING_LIMIT))
