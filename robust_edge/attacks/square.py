"""The black-box attack Square, which is written in numpy, on torch networks."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from robust_edge.attacks.attack import Attack, Batch
from robust_edge.settings.setting import setting
from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_runtimes.attacks import square
from robust_edge_runtimes.attacks.threat import LINF, Threat
from robust_edge_runtimes.verdict.measurement import LOGITS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search that sees only logits."""

    queries: int = setting(square.DEFAULT_QUERIES, "most queries per image", range="[1, inf)")
    share: float = setting(0.8, "fraction of the pixels that the first square covers", range="(0, 1]")

    norms: ClassVar[tuple[str, ...]] = (LINF,)

    @property
    def works_with(self) -> str:
        """LOGITS."""
        return LOGITS

    @property
    def title(self) -> str:
        """The name with the number of queries, for example `Square-500`."""
        return f"Square-{self.queries}"

    def perturb(self, model: nn.Module, batch: Batch, threat: Threat) -> Tensor:
        """The candidates with the smallest margin; arguments as for `Attack.perturb`.

        The random choices depend on the seed and on the batch, not on the positions.
        """

        def score(points: np.ndarray) -> np.ndarray:
            logits: np.ndarray = model(torch.from_numpy(points).to(batch.images)).cpu().numpy()
            return logits

        generator = torch.Generator().manual_seed(batch.seed)
        random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        pixels, labels = batch.images.float().cpu().numpy(), batch.labels.cpu().numpy()
        with torch.no_grad(), evaluation_mode(model):
            found = square.Square(self.queries, self.share).perturb(score, pixels, labels, threat, random)
        return torch.from_numpy(found).to(batch.images)
