"""Load a TorchScript file without giving it more than its tensors.

TorchScript can write files and print, some of it while the file is loaded. What an export writes does neither.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Iterator

from robust_edge_runtimes.core.errors import BundleError

RUN_ON_LOADING = (b"__setstate__", b"__forward_hooks__", b"__forward_pre_hooks__", b"torch.classes")
"""Names of code that runs while the file is loaded, or beside the network's own `forward`."""
NAMESPACES = ("aten", "prim", "prims", "quantized", "torchvision")
REFUSED = (
    "aten::save", "aten::from_file", "aten::_print", "aten::manual_seed", "aten::seed",
    "prim::Print", "prim::CallMethod", "prim::CallFunction", "prim::rpc_async", "prim::rpc_sync", "prim::rpc_remote",
)  # fmt: skip
"""Operators that reach beyond the network; calls that inlining leaves choose their function when they run."""


def load_script(path: Path) -> Any:
    """Load a file as a torch.jit.ScriptModule on the CPU, in evaluation mode.

    Raises:
        BundleError: its code does more than compute logits.
        Exception: of any class, where torch cannot read the file.
    """
    import torch

    reader = torch._C.PyTorchFileReader(str(path))  # the records that torch.jit.load reads
    for name in reader.get_all_records():
        _refuse_names(path, name, reader.get_record(name) if name.endswith((".py", ".pkl")) else b"")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated since 2.10, and CSR called a beta
        network = torch.jit.load(str(path), map_location="cpu").eval()
        for kind in set(_operators(network.inlined_graph)):
            if kind in REFUSED or kind.split("::")[0] not in NAMESPACES:
                raise _more_than_logits(path, kind)
    return network


def _refuse_names(path: Path, record: str, content: bytes) -> None:
    for name in RUN_ON_LOADING:
        if name in content:
            raise _more_than_logits(path, f"{name.decode()} in {record!r}")


def _operators(graph: Any) -> Iterator[str]:
    """Kinds of all nodes, those of nested blocks and graphs included."""
    for node in graph.nodes():
        yield node.kind()
        for block in node.blocks():
            yield from _operators(block)
        for name in node.attributeNames():
            if node.kindOf(name) == "g":
                yield from _operators(node.g(name))


def _more_than_logits(path: Path, what: str) -> BundleError:
    return BundleError(f"{path} does more than compute logits, by {what}; nothing of it was run. Export it again")
