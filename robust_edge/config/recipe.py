"""Settings of what the literature found to help robust training; all are off by default, preset `strong` turns them on.

Sources: weight averaging, Izmailov 2018 and Gowal 2020; adversarial weight perturbation (AWP), Wu 2020; early stopping
on held-out images, Rice 2020.
"""

from __future__ import annotations

import dataclasses

from robust_edge.config.ranges import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class AveragingConfig:
    """A running mean of the weights, which is judged and written in place of the last iterate.

    Attributes:
        decay: of the exponential mean per optimiser step, below 1; 0 writes the last iterate. It begins small and
            rises to this value, at the start and again after the hard projection, where the mean starts anew.
        reestimate: training images, clean and attacked, over which batch-norm's statistics of the final network are
            taken anew; 0 keeps the averaged ones.
    """

    decay: float = 0.0
    reestimate: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.decay < 1, "averaging.decay", self.decay, "0 or above, below 1 (0.999 is usual)")
        holds = self.reestimate == 0 or self.reestimate >= 2
        require(holds, "averaging.reestimate", self.reestimate, "0, or at least 2 images")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AwpConfig:
    """Adversarial weight perturbation: the gradient is taken where the loss is worst near the weights.

    Attributes:
        gamma: length of the perturbation relative to each layer's weights; 0 is none.
        warmup: epochs before it begins.
        abort: it ends for good when the loss under the perturbation is more than so many times the loss without (or 1,
            if that is less).
    """

    gamma: float = 0.0
    warmup: int = 10
    abort: float = 5.0

    def __post_init__(self) -> None:
        require(0 <= self.gamma < 1, "awp.gamma", self.gamma, "0 or above, below 1 (0.005 is usual)")
        require(self.warmup >= 0, "awp.warmup", self.warmup, "0 or above")
        require(self.abort > 1, "awp.abort", self.abort, "above 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Judging every epoch on training images that take no part in the training; test images never decide anything.

    Attributes:
        held_out: images of the training set that are set aside; 0 judges nothing and writes the last epoch's network.
        steps: PGD steps of the judgement, at the full radius of the run whatever the epoch's.
        every: epochs between two judgements; the last epoch is always judged.
    """

    held_out: int = 0
    steps: int = 10
    every: int = 1

    def __post_init__(self) -> None:
        require(self.held_out >= 0, "selection.held_out", self.held_out, "0 or above")
        require(self.steps >= 1, "selection.steps", self.steps, "at least 1")
        require(self.every >= 1, "selection.every", self.every, "at least 1")
