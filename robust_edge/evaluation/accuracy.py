"""Clean and PGD accuracy of a checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import nn

from robust_edge.attacks.pgd import Attacked, Pgd, attack_images
from robust_edge.data import Split
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.batches import batches_of
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.manifest import AttackSpec

BATCH = 250


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """A proportion with its 95% Wilson interval; all in [0, 1]."""

    correct: int
    images: int
    value: float
    low: float
    high: float

    @property
    def interval(self) -> str:
        """The interval in percent, such as `97.6 to 99.7`."""
        return f"{100 * self.low:.1f} to {100 * self.high:.1f}"


@dataclasses.dataclass(frozen=True)
class PgdResult:
    """The clean and the robust accuracy; an image counts as robust if it is right when clean and on every iterate."""

    attack: AttackSpec
    clean: Accuracy
    robust: Accuracy


def accuracy(correct: int, images: int) -> Accuracy:
    """Wilson's score interval around correct / images.

    Raises:
        InputError: there are no images.
    """
    if images < 1:
        raise InputError("no images to evaluate; raise --limit, or check the data set")
    from scipy.stats import binomtest  # takes about a second to import

    interval = binomtest(correct, images).proportion_ci(0.95, "wilson")
    return Accuracy(correct, images, correct / images, float(interval.low), float(interval.high))


def evaluate_pgd(
    model: nn.Module,
    split: Split,
    attack: Pgd,
    threat: Threat,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> PgdResult:
    """Attack a whole split.

    Args:
        model: raw pixels to logits; used in evaluation mode.
        split: the images, on the model's device.
        attack: the settings; only one random start is used.
        threat: the ball; with an eps of 0 both accuracies are the clean one.
        seed: of the random start.
        progress: called with (images done, number of images).
    """
    attacked = attack_split(model, split, attack, threat, seed=seed, progress=progress)
    total = len(split)
    spec = attack.spec(threat, seed)
    robust, clean = int(attacked.robust.sum()), int(attacked.clean.sum())
    return PgdResult(spec, accuracy(clean, total), accuracy(robust, total))


def attack_split(
    model: nn.Module,
    split: Split,
    attack: Pgd,
    threat: Threat,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Attacked:
    """Attack a split batch by batch; the result for all images, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for chosen in batches_of(len(split), BATCH):
        part = attack_images(model, split.floats(chosen), split.labels[chosen], attack, threat, generator)
        parts.append(part)
        if progress is not None:
            progress(chosen.stop, len(split))
    if not parts:
        raise InputError("no images to evaluate; raise --limit, or check the data set")
    return Attacked(
        torch.cat([part.images for part in parts]).cpu(),
        torch.cat([part.robust for part in parts]).cpu(),
        torch.cat([part.clean for part in parts]).cpu(),
    )
