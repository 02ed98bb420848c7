"""The one interface of all schemes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

Projection = Callable[[Mapping[str, Tensor], float], dict[str, Tensor]]
"""(weights by layer name, keep) to new tensors, the nearest point of the sparsity set."""
