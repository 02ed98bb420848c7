"""Settings of methods that improve robust training; all are off by default, preset `strong` uses most of them.

Sources: weight averaging, Izmailov 2018 and Gowal 2020; adversarial weight perturbation (AWP), Wu 2020; early stopping
on held-out images, Rice 2020.
"""

from __future__ import annotations

import dataclasses

from robust_edge.settings.ranges import require
from robust_edge.settings.setting import check, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class AveragingConfig:
    """An exponential moving average of the weights, which is evaluated and written instead of the last iterate."""

    decay: float = setting(
        0.0,
        "decay of the exponential average per optimiser step; 0 writes the last iterate. At the start and after the "
        "hard projection, where the average restarts, the decay is small and increases to this value",
        range="[0, 1)",
        hint="0.999 is usual",
    )
    reestimate: int = setting(
        0,
        "number of training images on which the batch-norm statistics of the final network are re-estimated, at least "
        "2: attacked as in training, and clean if the loss has a clean term; 0 keeps the averaged ones",
        range="[0, inf)",
    )

    def __post_init__(self) -> None:
        check(self, "averaging")
        require(self.reestimate != 1, "averaging.reestimate", self.reestimate, "0, or at least 2 images")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AwpConfig:
    """Adversarial weight perturbation: the gradient is computed at nearby weights with the largest loss."""

    gamma: float = setting(
        0.0,
        "norm of the perturbation relative to the norm of each layer's weights; 0 switches it off",
        range="[0, 1)",
        hint="0.005 is usual",
    )
    warmup: int = setting(10, "number of epochs before the perturbation starts", range="[0, inf)")
    windows: tuple[float, ...] | None = setting(
        None,
        "fractions of the run between which the perturbation is used, in pairs, such as [0.1, 0.45, 0.67, 1]; null: "
        "from `warmup` on",
        range="[0, 1]",
    )
    abort: float = setting(
        5.0,
        "switch the perturbation off for the rest of the run when the perturbed loss exceeds this multiple of the "
        "unperturbed loss (or of 1, if that is larger)",
        range="(1, inf)",
    )

    def __post_init__(self) -> None:
        bounds = [] if self.windows is None else list(self.windows)
        paired = bounds == sorted(set(bounds)) and len(bounds) % 2 == 0 and self.windows != ()
        require(paired, "awp.windows", bounds, "pairs of rising fractions from 0 to 1, or null")
        check(self, "awp")

    def active(self, place: float, epochs: int) -> bool:
        """Whether the perturbation is used at a place of the run, in epochs from 0, of so many."""
        return any(low <= place < high for low, high in self._spans(epochs))

    def active_in(self, epoch: int, epochs: int) -> bool:
        """Whether the perturbation is used in a part of this epoch, counted from 0, of so many, or in all of it."""
        return any(low < epoch + 1 and epoch < high for low, high in self._spans(epochs))

    def _spans(self, epochs: int) -> list[tuple[float, float]]:
        """Where the perturbation is used, from and to, in epochs."""
        if not self.windows:
            return [(self.warmup, epochs)]
        pairs = zip(self.windows[::2], self.windows[1::2], strict=True)
        return [(low * epochs, high * epochs) for low, high in pairs]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Selection of the best epoch on held-out training images; no test image influences a decision of the run."""

    held_out: int = setting(
        0,
        "number of training images to hold out, a fifth of all where it is more than half; 0 writes the network of the "
        "last epoch",
        range="[0, inf)",
    )
    steps: int = setting(
        10,
        "number of PGD steps in each evaluation of the held-out images, whose radius is attack.eps",
        range="[1, inf)",
    )
    every: int = setting(
        1, "epochs between two evaluations on held-out images; the last epoch is always evaluated", range="[1, inf)"
    )

    def __post_init__(self) -> None:
        check(self, "selection")
