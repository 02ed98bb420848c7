"""Data sets by name, the user's own, and batched augmentation.

The names below are imported when they are first used, since the command line reads the table of data sets and must
not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robust_edge.data.dataset import Batch, Dataset, Source, Split
    from robust_edge.data.load import load_dataset
    from robust_edge.data.stored import StoredImages

__all__ = ["Batch", "Dataset", "Source", "Split", "StoredImages", "load_dataset"]

_MODULES = {"StoredImages": "stored", "load_dataset": "load"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'dataset')}"), name)
