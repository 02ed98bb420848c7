"""How a file of a bundle differs from the one that the run exports, in one line for each place."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from robust_edge_runtimes.core.decode import short_repr

CONTEXT = 16  # characters shown before the first that differs
NAMED = 4  # rows of a tensor that are listed one by one


def byte_differences(built: Path, shipped: Path) -> list[str]:
    """Compare two files byte by byte; of texts the first line that differs is named."""
    ours, theirs, name = built.read_bytes(), shipped.read_bytes(), built.name
    if ours == theirs:
        return []
    try:
        return [_text_difference(name, ours.decode(), theirs.decode())]
    except UnicodeDecodeError:
        return [_binary_difference(name, ours, theirs)]


def tensor_difference(name: str, ours: np.ndarray, theirs: np.ndarray) -> str:
    """The difference between two tensors that are not equal, and the rows in which they differ; floats and integers.

    Args:
        name: of the tensor, for the line.
        ours: what the run exports.
        theirs: what the bundle holds.
    """
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return f"{name} is {theirs.dtype} {theirs.shape} instead of {ours.dtype} {ours.shape}"
    wide, other = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    differ = ~((wide == other) | (np.isnan(wide) & np.isnan(other)))
    largest = float(np.abs(wide).max(initial=0.0))
    apart = float(np.abs(wide - other)[differ].max(initial=0.0))
    return (
        f"{name}: {int(differ.sum())} of {differ.size} values differ{_rows(differ)}, by up to {apart:.3g} (largest "
        f"value {largest:.3g})"
    )


def _rows(differ: np.ndarray) -> str:
    """The first indices of the values that differ, where these are few."""
    if differ.ndim < 2:
        return ""
    rows = np.flatnonzero(differ.reshape(len(differ), -1).any(axis=1))
    if not len(rows) or len(rows) == len(differ):
        return ""
    more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
    return f" in row{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:NAMED]))}{more} of {len(differ)}"


def _text_difference(name: str, ours: str, theirs: str) -> str:
    expected, found = ours.split("\n"), theirs.split("\n")
    count = min(len(expected), len(found))
    line = next((i for i in range(count) if expected[i] != found[i]), count)
    if line == len(found):
        return f"{name} ends after line {line}, the export's goes on with {short_repr(expected[line])}"
    if line == len(expected):
        return f"{name}, line {line + 1} is {short_repr(found[line])}, the export ends before it"
    given, right = (short_repr(text) for text in _from_difference(found[line], expected[line]))
    return f"{name}, line {line + 1} is {given}, the export has {right}"


def _from_difference(*texts: str) -> list[str]:
    """Texts from shortly before the place where they part, so that shortening does not make them alike."""
    same = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, zip(*texts, strict=False)))
    return ["..." + text[same - CONTEXT :] for text in texts] if same > CONTEXT else list(texts)


def _binary_difference(name: str, ours: bytes, theirs: bytes) -> str:
    if len(ours) != len(theirs):
        return f"{name} has {len(theirs)} bytes, the export {len(ours)}"
    differ = np.flatnonzero(np.frombuffer(ours, np.uint8) != np.frombuffer(theirs, np.uint8))
    return f"{name}: {len(differ)} of {len(ours)} bytes differ, the first at offset {differ[0]}"
