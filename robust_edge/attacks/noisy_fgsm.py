"""N-FGSM: one gradient step from strong noise, for training only.

Source: de Jorge et al. 2022 (Make Some Noise), Algorithm 1 with k = 2: noise of radius 2ε, one step of length ε, and no
projection onto the ball, so that a pixel may move by 3ε. With the projection, or with less noise, training by one step
collapses.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from robust_edge.attacks.pgd import Pgd
from robust_edge_runtimes.attacks.threat import Threat


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoisyFgsm(Pgd):
    """One step from noise of twice the radius; its images may lie outside the ball, so it evaluates nothing."""

    steps: int = 1
    restarts: int = 1

    short: ClassVar[str] = "N-FGSM"
    noise: ClassVar[float] = 2.0
    projected: ClassVar[bool] = False

    def alpha(self, threat: Threat) -> float:
        """The step size: ε."""
        return threat.eps if self.step_size is None else self.step_size
