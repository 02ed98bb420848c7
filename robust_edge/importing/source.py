"""The request for an import, and the network that every kind of source returns."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from torch import nn

from robust_edge_runtimes.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What to import.

    Attributes:
        path: the file.
        arch: the architecture of a state dict; None for files that hold their own.
        shape: (C, H, W) of the network's input images; None for the shape that the file states.
        classes: number of classes; None for the number that the file states.
        named: what names the classes and which, for error messages.
        allow_code: whether the file may run code while it is read.
    """

    path: Path
    arch: str | None = None
    shape: tuple[int, ...] | None = None
    classes: int | None = None
    named: str = ""
    allow_code: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A network that was read.

    Attributes:
        network: in evaluation mode; normalised pixels (N, C, H, W) to logits (N, K).
        arch: its architecture in a run.
        shape: (C, H, W).
        classes: K.
        notes: differences between the network and the file, one sentence each.
    """

    network: nn.Module
    arch: str
    shape: tuple[int, ...]
    classes: int
    notes: tuple[str, ...] = ()


def refuse_code(path: Path, *, allowed: bool) -> None:
    """Raise InputError for a program of torch.export, which torch unpickles, unless its code is allowed."""
    if not allowed:
        raise InputError(
            f"{path}: torch.export.load can run code that the file holds; pass `allow_code` if you trust it, or import "
            "an ONNX file"
        )
