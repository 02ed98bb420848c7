"""Networks, chosen by name or built by the user's function, with normalisation inside the model.

The names below are imported when they are first used, since the command line reads the table of networks and must not
wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robust_edge.models.normalized import Normalized
    from robust_edge.models.spec import ModelSpec, build_model
    from robust_edge.models.table import ARCHITECTURES

__all__ = ["ARCHITECTURES", "ModelSpec", "Normalized", "build_model"]

_MODULES = {"ARCHITECTURES": "table", "Normalized": "normalized"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'spec')}"), name)
