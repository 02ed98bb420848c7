"""The fast gradient sign method.

Source: Goodfellow et al. 2015: one step of length ε from the image itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor, nn

from robust_edge.attacks.attack import Attack
from robust_edge.attacks.pgd import Pgd
from robust_edge_runtimes.attacks.threat import LINF, Threat


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fgsm(Attack):
    """One gradient step of length ε.

    Attributes:
        last: whether to perturb images that the network misclassifies without an attack, too.
    """

    last: bool = False

    norms: ClassVar[tuple[str, ...]] = (LINF,)

    @property
    def title(self) -> str:
        """The name without settings."""
        return "FGSM"

    def perturb(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        threat: Threat,
        *,
        seed: int,
        positions: Sequence[int],
    ) -> Tensor:
        """As `Attack.perturb`."""
        pgd = Pgd(steps=1, restarts=1, step_size=threat.eps, random_start=False, last=self.last)
        return pgd.perturb(model, images, labels, threat, seed=seed, positions=positions)

    def for_transfer(self) -> Fgsm:
        """The same step for all images, whether they are classified correctly or not."""
        return dataclasses.replace(self, last=True)
