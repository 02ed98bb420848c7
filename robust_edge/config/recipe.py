"""Settings of what the literature found to help robust training; all are off by default, preset `strong` turns them on.

Sources: weight averaging, Izmailov 2018 and Gowal 2020; adversarial weight perturbation (AWP), Wu 2020; early stopping
on held-out images, Rice 2020.
"""

from __future__ import annotations

import dataclasses

from robust_edge.settings.ranges import require
from robust_edge.settings.setting import check, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class AveragingConfig:
    """A running mean of the weights, which is judged and written in place of the last iterate."""

    decay: float = setting(
        0.0,
        "decay of the exponential mean per optimiser step; 0 writes the last iterate. It begins small and rises to "
        "this value, at the start and again after the hard projection, where the mean starts anew",
        range="[0, 1)",
        hint="0.999 is usual",
    )
    reestimate: int = setting(
        0,
        "training images, clean and attacked, over which batch-norm's statistics of the final network are estimated "
        "again, at least 2; 0 keeps the averaged ones",
        range="[0, inf)",
    )

    def __post_init__(self) -> None:
        check(self, "averaging")
        require(self.reestimate != 1, "averaging.reestimate", self.reestimate, "0, or at least 2 images")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AwpConfig:
    """Adversarial weight perturbation: the gradient is taken where the loss is worst near the weights."""

    gamma: float = setting(
        0.0,
        "length of the perturbation relative to each layer's weights; 0 is none",
        range="[0, 1)",
        hint="0.005 is usual",
    )
    warmup: int = setting(10, "epochs before it begins", range="[0, inf)")
    abort: float = setting(
        5.0,
        "it ends for good when the loss under the perturbation is more than so many times the loss without (or 1, if "
        "that is less)",
        range="(1, inf)",
    )

    def __post_init__(self) -> None:
        check(self, "awp")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Choice of the best epoch by training images that are held out; test images never decide anything."""

    held_out: int = setting(
        0,
        "training images that are set aside; 0 writes the network of the last epoch",
        range="[0, inf)",
    )
    steps: int = setting(
        10, "PGD steps on them, at the largest radius of the run whatever that of the epoch", range="[1, inf)"
    )
    every: int = setting(
        1, "epochs between two evaluations on them; the last epoch is always evaluated", range="[1, inf)"
    )

    def __post_init__(self) -> None:
        check(self, "selection")
