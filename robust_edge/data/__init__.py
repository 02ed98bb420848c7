"""Data sets, chosen by name or given by the user, and augmentation of batches.

The names below are imported on first use: the command line reads the table of data sets and must not wait for the
import of torch.
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
