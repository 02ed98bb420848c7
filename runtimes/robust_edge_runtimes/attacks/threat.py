"""The threat model: the set of perturbed images that an attack may choose from."""

from __future__ import annotations

import dataclasses
import math

from robust_edge_runtimes.core.errors import InputError, unknown_name

LINF, L2 = "linf", "l2"
NORMS = (LINF, L2)
SYMBOLS = {LINF: "ℓ∞", L2: "ℓ2"}
USUAL_EPS = {LINF: 8 / 255, L2: 0.5}  # where neither the user nor the run names a radius


@dataclasses.dataclass(frozen=True)
class Threat:
    """A ball around each image, cut with the pixel range [0, 1].

    Attributes:
        eps: radius in pixel units on [0, 1]; 0 allows no change.
        norm: `linf` or `l2`.
    """

    eps: float
    norm: str = LINF

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise unknown_name("norm", self.norm, NORMS)
        if not 0 <= self.eps < math.inf:
            raise InputError(f"eps must be a finite radius of 0 or above, it is {self.eps:g}")

    @property
    def symbol(self) -> str:
        """The norm in a table, such as `ℓ∞`."""
        return SYMBOLS[self.norm]


def step_size(eps: float, steps: int) -> float:
    """The length of a gradient step where none is given: 2.5·ε/s, so that s steps can cross the ball.

    Source: Madry et al. 2018.
    """
    return 2.5 * eps / steps
