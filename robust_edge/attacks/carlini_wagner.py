"""Carlini and Wagner's margin loss under a bound on the perturbation.

Source: Carlini and Wagner 2017, loss f6 with confidence κ, maximised by projected gradient steps inside the ball as in
Madry et al. 2018. Deviation: the perturbation is bounded by the ball and not by a penalty, so that ε has the same
meaning as in all other attacks.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from torch import Tensor

from robust_edge.attacks.logits import margins
from robust_edge.attacks.pgd import Pgd
from robust_edge.settings.setting import setting
from robust_edge_runtimes.attacks.threat import LINF


@dataclasses.dataclass(frozen=True, kw_only=True)
class CarliniWagner(Pgd):
    """PGD on the margin loss; its other settings are those of `Pgd`."""

    confidence: float = setting(
        50.0, "κ: the loss stops increasing once another class leads by this margin", range="[0, inf)"
    )

    short: ClassVar[str] = "CW"
    norms: ClassVar[tuple[str, ...]] = (LINF,)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """−Σ max(Z_y − max_{k≠y} Z_k, −κ)."""
        return -margins(logits, labels).clamp_min(-self.confidence).sum()
