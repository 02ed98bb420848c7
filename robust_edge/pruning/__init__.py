"""Sparsity sets, projections onto them, and ADMM.

The names below are for training loops of one's own; docs/training.md shows them in use. They are imported on first use,
since the command line reads the settings of this folder and must not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robust_edge.pruning.loop import PruningState, attach_masks, finish, init, penalty, step
    from robust_edge.pruning.parametrised import materialised
    from robust_edge.pruning.prunable import prunable_parameters

__all__ = [
    "PruningState",
    "attach_masks",
    "finish",
    "init",
    "materialised",
    "penalty",
    "prunable_parameters",
    "step",
]

_MODULES = {"materialised": "parametrised", "prunable_parameters": "prunable"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'loop')}"), name)
