"""Detect divergence: a loss that is not finite or explodes, or robust accuracy on held-out images that collapses.

Training by attacks of few steps can collapse (catastrophic overfitting, Wong 2020): from one epoch to the next the
network withstands only the attack of the training, and accuracy under PGD on held-out images falls.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from torch import nn

from robust_edge.config.compress import CompressConfig
from robust_edge.config.training import N_FGSM
from robust_edge.run.metrics import EpochRow
from robust_edge.training.losses import NUCLEAR, TRADES
from robust_edge.training.selection import guessing_limit

EXPLOSION = 20.0
"""Largest loss in units of ln K, the loss of guessing; the first epochs at a high learning rate stay far below it."""
CLEAR = 0.1
"""How far above chance level the best accuracy must have been, as a fraction of the distance from chance to 100%."""
LOST = 0.5
"""Fraction of its best accuracy under PGD that a collapsed network has lost, at least."""
UNAWARE = 2.0
"""How many times the held-out accuracy that of the training attack is in a collapse, at least."""
PATIENCE = 2
"""Number of consecutive evaluations of a collapse; a single one can follow a larger ε or the hard projection."""


def divergence(rows: Sequence[EpochRow], config: CompressConfig, classes: int, held_out: int) -> str | None:
    """The reason why the run has diverged after the last row; None if it has not.

    Args:
        rows: the metrics of all epochs so far, at least one.
        config: the settings of the run.
        classes: K, the number of classes.
        held_out: the number of images that are held out, which a small data set makes fewer than were asked for.
    """
    last = rows[-1]
    if not math.isfinite(last.loss):
        return f"the loss of epoch {last.epoch} is {last.loss}"
    limit = EXPLOSION * math.log(classes) * _scale(config)
    if last.loss > limit:
        return f"the loss of epoch {last.epoch} is {last.loss:.4g}, above {limit:.4g}, {EXPLOSION:g} times guessing"
    for name, value in dataclasses.asdict(last).items():
        if isinstance(value, float) and not math.isfinite(value):
            return f"the {name} of epoch {last.epoch} is {value}"
    return _collapse(rows, classes, held_out) or _overfitted(rows, classes, config, held_out)


def note_on_collapse(config: CompressConfig) -> str | None:
    """A note on training by one attack step without held-out images, whose collapse would not be seen; else None."""
    settings = config.attack
    single = settings.method == N_FGSM or settings.steps == 1 or config.training.loss == NUCLEAR
    if config.selection.held_out or not single or not config.robust or not config.training.epochs:
        return None
    return (
        "training by one attack step can collapse, and that is detected on held-out images only; set "
        "selection.held_out (1000 in preset strong) to end such a run and to keep its best network"
    )


def not_finite(model: nn.Module, epoch: int) -> str | None:
    """Name the first tensor of a network that holds NaN or infinity; None if all are finite.

    The loss does not show this, since the last step of an epoch follows its last loss.
    """
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            return f"{name} holds NaN or infinity after epoch {epoch}"
    return None


def _scale(config: CompressConfig) -> float:
    return 1 + config.training.beta if config.training.loss in (TRADES, NUCLEAR) else 1.0


def _collapse(rows: Sequence[EpochRow], classes: int, images: int) -> str | None:
    evaluated = [(row.epoch, row.held_out_robust) for row in rows if row.held_out_robust is not None]
    if len(evaluated) <= PATIENCE or rows[-1].held_out_robust is None:
        return None
    limit = guessing_limit(classes, images)
    epoch, best = max(evaluated[:-PATIENCE], key=lambda item: item[1])
    fallen = [robust for _, robust in evaluated[-PATIENCE:]]
    if best < limit + CLEAR * (1 - 1 / classes) or max(fallen) > limit:
        return None
    return (
        f"accuracy under attack on held-out images fell to {100 * fallen[-1]:.1f}%, which is chance level, after epoch "
        f"{evaluated[-1][0]}; it was {100 * best:.1f}% after epoch {epoch}"
    )


def _overfitted(rows: Sequence[EpochRow], classes: int, config: CompressConfig, images: int) -> str | None:
    """Whether the network withstands the training attack only, by the last evaluations, all in the present phase."""
    last = rows[-1]
    seen = [(row.held_out_robust, row) for row in rows if row.held_out_robust is not None]
    if len(seen) <= PATIENCE or last.held_out_robust is None:
        return None
    recent = seen[-PATIENCE:]
    best, at = max(seen[:-PATIENCE], key=lambda item: item[0])
    limit = (1 - LOST) * best
    fallen = all(robust <= limit and row.robust_accuracy >= UNAWARE * robust for robust, row in recent)
    begun = any(row.phase != last.phase for _, row in recent)  # such as the hard projection between them
    if limit < guessing_limit(classes, images) or not fallen or begun:
        return None
    n_fgsm = config.attack.method == N_FGSM
    stable = "attack.method=pgd with attack.steps=2" if n_fgsm else "a larger attack.steps"
    return (
        f"accuracy under PGD on held-out images fell to {100 * last.held_out_robust:.1f}% after epoch {last.epoch}, "
        f"it was {100 * best:.1f}% after epoch {at.epoch}, while that under the training attack is "
        f"{100 * last.robust_accuracy:.1f}%; {stable} is more stable"
    )
