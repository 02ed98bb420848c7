"""Two layers of equal weights stay two: torch's exporters store equal tensors once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch


@contextmanager
def kept_apart() -> Iterator[None]:
    """While it is active, a tensor that an exporter stores once is one that layers share.

    Otherwise layers that pruning has emptied become one where they are of one size, the file has fewer weights than the
    network, and which layer a weight is of is lost. Neither exporter has an option for this.
    """
    from onnx_ir.passes import PassResult  # imports sympy
    from onnx_ir.passes.common import DeduplicateInitializersPass

    by_value = torch._C._jit_pass_onnx_deduplicate_initializers

    def by_memory(graph: Any, tensors: Any, _: bool) -> Any:
        """In training equal tensors may come to differ, so that only those of one memory are one."""
        return by_value(graph, tensors, True)

    def unchanged(_: Any, model: Any) -> Any:
        return PassResult(model, modified=False)

    with (
        mock.patch.object(torch._C, "_jit_pass_onnx_deduplicate_initializers", by_memory),
        mock.patch.object(DeduplicateInitializersPass, "call", unchanged),
    ):
        yield
