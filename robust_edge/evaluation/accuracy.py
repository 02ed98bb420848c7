"""Accuracies with their intervals, and PGD on a whole split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn

from robust_edge.attacks.pgd import Attacked, Pgd, attack_images
from robust_edge.data import Split
from robust_edge.evaluation.batch_size import batch_size
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.batches import batches_of
from robust_edge_runtimes.core.errors import InputError


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


def accuracy(correct: int, images: int) -> Accuracy:
    """Wilson's score interval around correct / images.

    Raises:
        InputError: there are no images.
    """
    if images < 1:
        raise InputError("no images to evaluate; raise `limit`, or check the data set")
    from scipy.stats import binomtest  # takes about a second to import

    interval = binomtest(correct, images).proportion_ci(0.95, "wilson")
    return Accuracy(correct, images, correct / images, float(interval.low), float(interval.high))


def accuracy_of(right: Tensor) -> Accuracy:
    """The fraction of an (N,) bool tensor that is True.

    Raises:
        InputError: there are no images.
    """
    return accuracy(int(right.sum()), len(right))


def attack_split(
    model: nn.Module,
    split: Split,
    attack: Pgd,
    threat: Threat,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Attacked:
    """Attack a whole split with PGD, batch by batch.

    Args:
        model: raw pixels to logits; used in evaluation mode.
        split: the images, on the model's device.
        attack: the settings; only one random start is used.
        threat: the ball; with an eps of 0 an image is robust if it is right when clean.
        seed: of the random start.
        progress: called with (images done, number of images).

    Returns:
        The result for all images, on the CPU.

    Raises:
        InputError: there are no images.
    """
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for chosen in batches_of(len(split), batch_size(split.images.shape[1:], split.labels.device)):
        part = attack_images(model, split.floats(chosen), split.labels[chosen], attack, threat, generator)
        parts.append(part)
        if progress is not None:
            progress(chosen.stop, len(split))
    if not parts:
        raise InputError("no images to evaluate; raise `limit`, or check the data set")
    return Attacked(
        torch.cat([part.images for part in parts]).cpu(),
        torch.cat([part.robust for part in parts]).cpu(),
        torch.cat([part.clean for part in parts]).cpu(),
    )
