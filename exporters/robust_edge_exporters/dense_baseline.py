"""The same network with every zero filled: what a sparse bundle has to be compared with."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from robust_edge_exporters.formats.table import format_named
from robust_edge_runtimes.bench.latency import Contender
from robust_edge_runtimes.core.errors import InputError


@contextlib.contextmanager
def with_dense_baseline(given: Sequence[Contender]) -> Iterator[tuple[list[Contender], int]]:
    """Bundles to time and the index of the dense one among them.

    The first dense bundle given is the baseline; one that is dense because channels were removed is none. Where there
    is no other, one is made of the first bundle whose format allows it, in a temporary folder, and stands first.

    Raises:
        InputError: no dense bundle, and none that one can be made from.
    """
    for index, contender in enumerate(given):
        if _is_dense(contender) and contender.bundle.manifest.compaction is None:
            yield list(given), index
            return
    with tempfile.TemporaryDirectory() as folder:
        yield [_made_dense(given, Path(folder)), *given], 0


def _made_dense(given: Sequence[Contender], folder: Path) -> Contender:
    for contender in given:
        if _is_dense(contender):
            continue
        made = format_named(contender.bundle.manifest.artifact.format).dense_baseline(contender.bundle, folder)
        if made is not None:
            return Contender(f"{contender.label} ({made.label})", made.bundle, baseline_only=True)
    raise InputError(
        "no dense bundle to compare with (one that lost channels does not count); give one exported from a run with "
        "--keep 1"
    )


def _is_dense(contender: Contender) -> bool:
    """Whether no weight is zero; true of a dense network, and of one that lost whole channels."""
    sparsity = contender.bundle.manifest.sparsity
    return sparsity.nonzero == sparsity.weights
