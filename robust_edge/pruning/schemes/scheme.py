"""The one interface of all schemes: which weights stay. The projection follows from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Support = Callable[[Mapping[str, Tensor], float], dict[str, Tensor]]
"""(weights by layer name, keep) to bool tensors of the same shapes, true where a weight may be non-zero."""

Projection = Callable[[Mapping[str, Tensor], float], dict[str, Tensor]]
"""(weights by layer name, keep) to new tensors, the nearest point of the sparsity set."""


def masked(weights: Mapping[str, Tensor], support: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """New tensors: the weights on the support, zero elsewhere."""
    return {n: torch.where(support[n], weight.detach(), torch.zeros_like(weight)) for n, weight in weights.items()}
