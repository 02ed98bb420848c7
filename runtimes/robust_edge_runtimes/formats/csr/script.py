"""Load a TorchScript file without giving it more than its tensors.

TorchScript can write files and print, some of it while the file is loaded. What an export writes does neither.
"""

from __future__ import annotations

import pickletools
import warnings
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from robust_edge_runtimes.core.errors import BundleError

RUN_ON_LOADING = (b"__setstate__", b"__forward_hooks__", b"__forward_pre_hooks__", b"torch.classes")
"""Names of code that runs while the file is loaded, or beside the network's own `forward`."""
NAMESPACES = ("aten", "prim", "prims", "quantized", "torchvision")
REFUSED = (
    "aten::save", "aten::from_file", "aten::_print", "aten::manual_seed", "aten::seed",
    "prim::Print", "prim::CallMethod", "prim::CallFunction", "prim::rpc_async", "prim::rpc_sync", "prim::rpc_remote",
)  # fmt: skip
"""Operators that reach beyond the network; calls that inlining leaves choose their function when they run."""
BYTES = {
    "Double": 8, "Long": 8, "Float": 4, "Int": 4, "Half": 2, "BFloat16": 2, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
}  # fmt: skip
"""The size of a value by the name of its storage class."""


def load_script(path: Path) -> Any:
    """Load a file as a torch.jit.ScriptModule on the CPU, in evaluation mode.

    Raises:
        BundleError: its code does more than compute logits.
        Exception: of any class, where torch cannot read the file.
    """
    import torch

    reader = torch._C.PyTorchFileReader(str(path))  # the records that torch.jit.load reads
    for name in reader.get_all_records():
        content = reader.get_record(name) if name.endswith((".py", ".pkl")) else b""
        _refuse_names(path, name, content)
        if name in ("data.pkl", "constants.pkl"):
            _refuse_short_records(path, reader, name[: -len(".pkl")], content)
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


def _refuse_short_records(path: Path, reader: Any, folder: str, pickled: bytes) -> None:
    """Torch reads as many bytes as a tensor declares, beyond the end of a record that has fewer."""
    for kind, record, count in _storages(pickled):
        size = BYTES.get(str(kind)[len("torch ") : -len("Storage")], 0)
        if not size or not isinstance(count, int) or len(reader.get_record(f"{folder}/{record}")) != size * count:
            raise BundleError(f"{path} is damaged: {folder}/{str(record)[:20]} does not have its length; copy it again")


def _storages(pickled: bytes) -> Iterator[Tuple[Any, Any, Any]]:
    """Class, record and number of values of each storage that a pickle refers to; nothing is unpickled."""
    memo: Dict[Any, Any] = {}
    pushed: List[Any] = []
    for operation, value, _ in pickletools.genops(pickled):
        if operation.name in ("BINPUT", "LONG_BINPUT"):
            memo[value] = pushed[-1] if pushed else None
        elif operation.name == "BINPERSID":
            _, kind, record, _, count = ([None] * 6 + pushed)[-6:-1]  # before the tuple that they were put into
            yield kind, record, count
        else:
            pushed.append(memo.get(value) if operation.name in ("BINGET", "LONG_BINGET") else value)


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
