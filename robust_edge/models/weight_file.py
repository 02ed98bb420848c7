"""The state dicts in a file of weights that others have written; no code that the file names is run."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from robust_edge.models.packed import load_tensors
from robust_edge_runtimes.core.errors import InputError

DEPTH = 4
"""Of the containers in which a training script may store a state dict."""
OWN, BUFFERS, CHILDREN = "_parameters", "_buffers", "_modules"
"""Where a pickled torch.nn.Module holds its tensors and its parts."""


class Ignored:
    """Stands for an object of any class in a pickle: it keeps what the file says of it, and does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Ignored:
        """Whatever the class was called with."""
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.held: Mapping[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        """The attributes of the object, where the file gives them by name."""
        self.held = state if isinstance(state, dict) else {}


def read_state_dicts(path: Path, where: str) -> dict[str, dict[str, Tensor]]:
    """All groups of named tensors in a file, by where in the file they are, the outermost first.

    Args:
        path: `.safetensors`, or a file of torch.save: a state dict, a checkpoint of a training script that holds some,
            or a whole module, of which the tensors are read. Objects of other kinds are passed over.
        where: what the file is, for error messages.

    Returns:
        Name to tensor, by the keys that lead there; "" for those that the file itself holds.

    Raises:
        InputError: the file cannot be read, or holds no named tensors.
    """
    if path.is_dir():
        raise InputError(f"{where} is a folder; give the path of a file, for a run {path / 'checkpoint.safetensors'}")
    if not path.is_file():
        raise InputError(f"{where} is not a file, nor a run")
    try:
        if path.suffix == ".safetensors":
            return {"": load_tensors(path)}
        with warnings.catch_warnings(), _without_code(path):
            warnings.simplefilter("ignore")  # of torch, about kinds of tensors that are refused by name
            value = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, OSError) as cause:
        reason = " ".join(str(cause).split())[:300] or type(cause).__name__
        if "TorchScript" in reason:
            reason = "it is TorchScript; save the state dict of its network, torch.jit.load(FILE).state_dict()"
        raise InputError(f"{where} cannot be read as tensors: {reason}") from cause
    except Exception as cause:  # torch's own message recommends loading the file with weights_only=False
        raise InputError(
            f"{where} is damaged or holds other objects than tensors, which are not loaded "
            f"({type(cause).__name__}); save model.state_dict()"
        ) from cause
    found = dict(_groups(value, ""))
    if not found:
        raise InputError(f"{where} holds no state dict of tensors; save model.state_dict()")
    return found


@contextlib.contextmanager
def _without_code(path: Path) -> Iterator[None]:
    """Let torch put `Ignored` in place of every class and function that it would not load."""
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # a file of another kind, which torch.load names
        named = []
    with torch.serialization.safe_globals([(Ignored, name) for name in named]):
        yield


def _groups(value: Any, place: str, depth: int = DEPTH) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The groups of tensors in a value of any kind and in what it holds."""
    if isinstance(value, Ignored):
        tensors = dict(_tensors_of(value))
        if tensors:
            yield place, tensors
    items = dict(enumerate(value)) if isinstance(value, (list, tuple)) else value
    if not isinstance(items, dict) or not depth:
        return
    tensors = {key: item for key, item in items.items() if isinstance(key, str) and isinstance(item, Tensor)}
    if tensors:
        yield place, tensors
    for key, item in items.items():
        yield from _groups(item, f"{place}.{key}".lstrip("."), depth - 1)


def _tensors_of(module: Ignored, prefix: str = "", above: tuple[Ignored, ...] = ()) -> Iterator[tuple[str, Tensor]]:
    """The state dict of a pickled torch.nn.Module."""
    if module in above:
        return
    passing = module.held.get("_non_persistent_buffers_set", ())
    for kind in (OWN, BUFFERS):
        for name, tensor in _entries(module, kind):
            if isinstance(tensor, Tensor) and not (isinstance(passing, set) and name in passing):
                yield f"{prefix}{name}", tensor
    for name, child in _entries(module, CHILDREN):
        if isinstance(child, Ignored):
            yield from _tensors_of(child, f"{prefix}{name}.", (*above, module))


def _entries(module: Ignored, kind: str) -> Iterator[tuple[str, Any]]:
    found = module.held.get(kind)
    yield from found.items() if isinstance(found, dict) else ()
