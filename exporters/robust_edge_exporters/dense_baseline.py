"""The dense baseline of `bench`: a given dense bundle, or a copy of a sparse bundle with its zeros filled."""

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
    """Yield the bundles to time and the index of the dense baseline among them.

    The baseline is the first given bundle that is dense and lost no channels. If there is none, a dense copy of the
    first sparse bundle whose format supports it is made in a temporary folder and becomes the first bundle.

    Raises:
        InputError: there is no dense bundle, and none can be made.
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
        "there is no dense bundle to compare with (one whose channels were removed does not count); give one that was "
        "exported from a run whose pruning.keep is 1"
    )


def _is_dense(contender: Contender) -> bool:
    """Whether no weight is zero, as in a dense network, or in one whose zero channels were removed."""
    sparsity = contender.bundle.manifest.sparsity
    return sparsity.nonzero == sparsity.weights
