"""The attack of Algorithm 2: PGD from one random start, which `evaluate` runs at increasing radii.

Source: Marshall 2020, Algorithm 2.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor, nn

from robust_edge.attacks.attack import Attack, Batch
from robust_edge.attacks.pgd import Pgd
from robust_edge.settings.setting import setting
from robust_edge_runtimes.attacks.threat import LINF, Threat

RADII = (0.0, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve(Attack):
    """PGD from one random start at one radius."""

    steps: int = setting(100, "gradient steps at every radius", range="[1, inf)")

    radii: ClassVar[tuple[float, ...]] = RADII
    norms: ClassVar[tuple[str, ...]] = (LINF,)
    few_steps: ClassVar[int] = Pgd.few_steps

    @property
    def title(self) -> str:
        """The name with the number of steps, for example `PGD-100`."""
        return self._pgd.title

    @property
    def _pgd(self) -> Pgd:
        return Pgd(steps=self.steps, restarts=1)

    def perturb(self, model: nn.Module, batch: Batch, threat: Threat) -> Tensor:
        """As `Attack.perturb`."""
        return self._pgd.perturb(model, batch, threat)
