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
"""What torch replaces in the whole process while it traces, beside functions of `math` and of the network's module.
`CURRENT_PATCHER` knows the replacements; as long as it is set, torch.compile puts them in place again after each
compilation."""


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """Put back at the end of the block what torch.fx replaced: an interrupt may end its own clean-up half-way.

    No other thread may trace meanwhile, as in torch.fx itself.
    """
    before = [(owner, name, getattr(owner, name)) for owner, name in REPLACED if hasattr(owner, name)]
    earlier = getattr(_symbolic_trace, "CURRENT_PATCHER", None)
    try:
        yield
    finally:
        unfinished = getattr(_symbolic_trace, "CURRENT_PATCHER", None)
        if unfinished is not None and unfinished is not earlier:
            for patch in unfinished.patches_made:
                with contextlib.suppress(KeyError):  # torch has put this one back
                    patch.revert()
        for owner, name, value in before:
            setattr(owner, name, value)
