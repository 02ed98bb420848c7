"""The schedules of ε (radius), s (steps), k (kept fraction) and η (learning rate), one value per epoch.

Source: Marshall 2020, section 3.1: ε is raised every T/3, s grows every epoch and starts again from 1 when ε is raised,
k is lowered in steps.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from robust_edge.config.compress import CompressConfig
from robust_edge.config.training import TrainingConfig
from robust_edge_runtimes.core.errors import InputError

ROUNDING = 1e-9
"""What rounding may add to a fraction of the epochs or take from it: 0.55 of 100 epochs are 55.00000000000001."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedules:
    """The values of all schedules, one per epoch.

    Attributes:
        eps: attack radius in pixel units.
        steps: gradient steps of the attack.
        keep: kept fraction of the projection.
        lr: learning rate; of schedule `linear`, which changes with every batch, in the middle of the epoch.
        masked_from: first epoch of the masked phase; equal to the number of epochs where nothing is pruned.
        admm_from: first epoch of ADMM, at most `masked_from`.
        quantized_from: first epoch in the arithmetic of `training.quantize`, at least `masked_from`; equal to the
            number of epochs where that is floats.
    """

    eps: tuple[float, ...]
    steps: tuple[int, ...]
    keep: tuple[float, ...]
    lr: tuple[float, ...]
    masked_from: int
    quantized_from: int
    admm_from: int = 0


def schedules(config: CompressConfig) -> Schedules:
    """Compute the values of the schedules of a config, which are given as names or sequences.

    Raises:
        InputError: a sequence does not have one value for each epoch that it applies to.
    """
    epochs = config.training.epochs
    masked_from = _masked_from(config)
    eps = _eps(config, epochs)
    return Schedules(
        eps=eps,
        steps=_steps(config, eps),
        keep=_keep(config, masked_from),
        lr=_lr(config, masked_from),
        masked_from=masked_from,
        quantized_from=_quantized_from(config, masked_from),
        admm_from=min(int(config.admm.start * epochs + ROUNDING), masked_from) if config.sparse else masked_from,
    )


def note_on_random_weights(config: CompressConfig) -> str | None:
    """A note on random weights that are pruned before any training, since the run is too short; else None."""
    epochs = config.training.epochs
    if not config.sparse or config.init is not None or not epochs or _masked_from(config):
        return None
    return (
        f"no epoch comes before the mask, so that random weights are pruned, without ADMM: training.epochs is {epochs} "
        f"and admm.masked_fraction {config.admm.masked_fraction:g}; train for more epochs"
    )


def learning_rate(plan: Schedules, training: TrainingConfig, epoch: int, part: float) -> float:
    """The learning rate when a part of an epoch, 0 to 1, is over; only schedule `linear` changes within an epoch."""
    if training.lr_schedule != "linear":
        return plan.lr[epoch]
    return _line(training, (epoch + part) / training.epochs)


def pruned_at(plan: Schedules, config: CompressConfig, epoch: int) -> Schedules:
    """The schedules with the masked phase starting at this epoch."""
    keep = plan.keep[:epoch] + (config.pruning.keep,) * (len(plan.keep) - epoch)
    quantized_from = _quantized_from(config, epoch)
    return dataclasses.replace(plan, masked_from=epoch, quantized_from=quantized_from, keep=keep, lr=_lr(config, epoch))


def _masked_from(config: CompressConfig) -> int:
    """The first epoch of the masked phase; the number of epochs if nothing is pruned."""
    epochs = config.training.epochs
    if not config.sparse:
        return epochs
    return max(epochs - max(1, math.ceil(epochs * config.admm.masked_fraction - ROUNDING)), 0)


def _quantized_from(config: CompressConfig, masked_from: int) -> int:
    """The first epoch in the arithmetic of `training.quantize`; the number of epochs if that is floats."""
    training = config.training
    if training.quantize == "none":
        return training.epochs
    return max(masked_from, training.epochs - max(1, round((training.epochs - masked_from) * training.quantize_share)))


def _eps(config: CompressConfig, epochs: int) -> tuple[float, ...]:
    schedule, eps = config.attack.eps_schedule, config.attack.eps
    if schedule == "constant":
        return (eps,) * epochs
    if schedule == "thirds":
        return tuple(eps * (math.ceil(3 * (epoch + 1) / epochs) / 3) for epoch in range(epochs))  # ends at ε for any T
    if schedule == "linear":
        rise = max(1, int(epochs * config.attack.eps_rise + ROUNDING))
        return tuple(eps * min(1.0, (epoch + 1) / rise) for epoch in range(epochs))
    return _one_per_epoch("attack.eps_schedule", schedule, epochs)


def _steps(config: CompressConfig, eps: tuple[float, ...]) -> tuple[int, ...]:
    """Attack steps of every epoch; schedule `grow` counts up from 1, and starts again where the radius rises."""
    schedule, most = config.attack.steps_schedule, config.attack.steps
    if schedule == "constant":
        return (most,) * len(eps)
    if schedule != "grow":
        return _one_per_epoch("attack.steps_schedule", schedule, len(eps))
    steps: list[int] = []
    for epoch, radius in enumerate(eps):
        radius_rises = epoch == 0 or radius > eps[epoch - 1]
        steps.append(1 if radius_rises else min(steps[-1] + 1, most))
    return tuple(steps)


def _keep(config: CompressConfig, masked_from: int) -> tuple[float, ...]:
    """Kept fraction of every epoch; schedule `halve` goes down by halves until the masked phase."""
    keep, schedule, epochs = config.pruning.keep, config.pruning.keep_schedule, config.training.epochs
    tail = (keep,) * (epochs - masked_from)
    if schedule == "constant" or not config.sparse:
        return (keep,) * masked_from + tail
    if schedule != "halve":
        return _one_per_epoch("pruning.keep_schedule", schedule, masked_from) + tail
    levels = max(1, math.ceil(math.log2(1 / keep) - 1e-9))
    stages = [max(keep, 0.5 ** (level + 1)) for level in range(levels)]
    return tuple(stages[epoch * levels // masked_from] for epoch in range(masked_from)) + tail


def _lr(config: CompressConfig, masked_from: int) -> tuple[float, ...]:
    """Learning rate of every epoch; schedule `cosine` goes down to 0 before the masked phase and again within it."""
    training = config.training
    if training.lr_schedule == "linear":
        return tuple(_line(training, (epoch + 0.5) / training.epochs) for epoch in range(training.epochs))
    if training.lr_schedule == "step":
        return tuple(training.lr * training.lr_decay ** (epoch // training.lr_step) for epoch in range(training.epochs))
    if training.lr_schedule != "cosine":
        return _one_per_epoch("training.lr_schedule", training.lr_schedule, training.epochs)
    parts = (masked_from, training.epochs - masked_from)
    return tuple(
        training.lr * (1 + math.cos(math.pi * epoch / length)) / 2 for length in parts for epoch in range(length)
    )


def _line(training: TrainingConfig, place: float) -> float:
    """Schedule `linear` at a place of the run, from 0 to 1."""
    if place < training.lr_warmup:
        return training.lr * max(place / training.lr_warmup, training.lr_tail)
    left = (training.lr_end - place) / (training.lr_end - training.lr_warmup)
    return training.lr * max(left, training.lr_tail)


def _one_per_epoch(name: str, values: Sequence[float] | Sequence[int] | str, length: int) -> tuple:  # type: ignore[type-arg]
    """The values of a schedule that the config lists, after a check of their number."""
    if len(values) != length:
        raise InputError(f"{name} has {len(values)} values, it needs {length}, one per epoch it applies to")
    return tuple(values)
