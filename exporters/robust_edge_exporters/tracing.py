"""Trace networks with torch.fx so that an interrupt leaves nothing of the trace behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn
from torch.fx import _symbolic_trace

REPLACED = (
    (nn.Module, "__call__"),
    (nn.Module, "__getattr__"),
    (_symbolic_trace, "CURRENT_PATCHER"),
    (_symbolic_trace, "_is_fx_tracing_flag"),
)
"""What torch replaces in the whole process while it traces. `CURRENT_PATCHER` knows the replacements, which
torch.compile puts in place again after each compilation as long as it is set."""


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """Put back at the end of the block what torch.fx replaces: an interrupt may end its own clean-up half-way."""
    before = [(owner, name, getattr(owner, name)) for owner, name in REPLACED if hasattr(owner, name)]
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
