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
    """The attack.

    Attributes:
        last: also step on images that the network has wrong without an attack.
    """

    last: bool = False

    norms: ClassVar[tuple[str, ...]] = (LINF,)

    @property
    def title(self) -> str:
        """As `FGSM`."""
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
        """See Attack."""
        step = Pgd(steps=1, restarts=1, step_size=threat.eps, random_start=False, last=self.last)
        return step.perturb(model, images, labels, threat, seed=seed, positions=positions)

    def for_transfer(self) -> Fgsm:
        """The step itself, for every image."""
        return dataclasses.replace(self, last=True)
