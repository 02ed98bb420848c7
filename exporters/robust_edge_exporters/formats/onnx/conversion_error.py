"""Why torch could not convert a network to ONNX, in one line for the user."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from robust_edge_exporters.weight_uses import BRANCHES

# PyTorch's own operators wherever a message names them, and any operator where it is named in an exporter's phrase.
_OPERATOR = re.compile(
    r"\b(?:aten|prims|torchvision)(?:\.|::)\w+|(?<=OpOverload\(op=')\w+\.\w+|(?<=unrecognized namespace )\w+::\w+"
)
# How torch.export names the line of the network that it could not trace.
_LINE = re.compile(r'The following call raised this error:\s+File "([^"]+)", line (\d+)')
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# What torch adds to a message for its own developers: hints of symbols, and places in whatever file called it.
_FOR_DEVELOPERS = re.compile(r" \(unhinted: .*| Caused by: .*| For more information, run with .*")


def reason(cause: Exception, model: nn.Module, example: torch.Tensor) -> str:
    """Explain in one line why torch could not convert a network.

    Of the chain of exceptions that led to `cause`, the innermost one that names an operator or a line of the network
    is quoted, after that operator or line; the outermost if none does.
    """
    link: BaseException | None = cause
    found = ""
    while link is not None:
        if not found and type(link).__name__ != "PassError":  # which only says that a pass failed
            found = _one_line(link)
        if line := _LINE.search(str(link)):
            found = f"line {line.group(2)} of {line.group(1)}: {_one_line(link)}"
        if named := _OPERATOR.search(str(link)):
            found = f"operator {named.group()}{_place(model, example, named.group())}: {_one_line(link)}"
        link = link.__cause__ or link.__context__
    return found or _one_line(cause)


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Suppress what torch warns, prints and logs about its internals; a failure is reported by our own error."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            with _without_output_of_libraries():
                yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def _without_output_of_libraries() -> Iterator[None]:
    """Discard what C++ writes to standard output: torch prints the whole graph where it lacks an operator."""
    if sys.__stdout__ is not None:
        sys.__stdout__.flush()
    kept = os.dup(1)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _place(model: nn.Module, example: torch.Tensor, operator: str) -> str:
    """Name the node and the module of an operator, where torch.export can trace the network."""
    name = re.split(r"\W+", operator)[1]
    try:
        with silenced():
            nodes = list(torch.export.export(model, (example,)).graph.nodes)
    except Exception:  # the name of the operator suffices
        return ""
    for node in nodes:
        if node.op == "call_function" and name in str(node.target):
            stack = list((node.meta.get("nn_module_stack") or {}).values())
            module, kind = stack[-1] if stack else ("", "")
            kind = getattr(kind, "__qualname__", str(kind)).rsplit(".", 1)[-1]
            return f" of node {node.name!r} in {f'module {module!r}' if module else 'the network itself'} ({kind})"
    return ""


def _one_line(cause: BaseException) -> str:
    text = _FOR_DEVELOPERS.sub("", " ".join(_COLOUR.sub("", str(cause)).split()))[:300]
    return f"{text}: {BRANCHES}" if "data-dependent" in text else text
