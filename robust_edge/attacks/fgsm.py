"""The fast gradient sign method.

Source: Goodfellow et al. 2015: one step of length ε from the image itself.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor, nn

from robust_edge.attacks.attack import Attack, Batch
from robust_edge.attacks.pgd import Pgd
from robust_edge.settings.setting import setting
from robust_edge_runtimes.attacks.threat import LINF, Threat


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fgsm(Attack):
    """One gradient step of length ε."""

    last: bool = setting(False, "perturb images that the network misclassifies without an attack, too")

    norms: ClassVar[tuple[str, ...]] = (LINF,)

    @property
    def title(self) -> str:
        """The name without settings."""
        return "FGSM"

    def perturb(self, model: nn.Module, batch: Batch, threat: Threat) -> Tensor:
        """As `Attack.perturb`."""
        step_size = threat.eps or None
        pgd = Pgd(steps=1, restarts=1, step_size=step_size, random_start=False, last=self.last)
        return pgd.perturb(model, batch, threat)

    def for_transfer(self) -> Fgsm:
        """The same step for all images, whether they are classified correctly or not."""
        return dataclasses.replace(self, last=True)
