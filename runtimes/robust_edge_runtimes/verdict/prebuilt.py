"""Compiled files that a bundle holds beside their source, which `verify` attacks: they must behave as it does."""

from __future__ import annotations

from typing import List, Tuple

import numpy as np

from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.errors import RobustEdgeError
from robust_edge_runtimes.core.golden import Golden
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats.format import Prebuilt
from robust_edge_runtimes.formats.table import format_named
from robust_edge_runtimes.scoring import relative_error, score_of
from robust_edge_runtimes.verdict.checks import ALONE
from robust_edge_runtimes.verdict.flags import Check

TOLERANCE = 1e-6  # two compilers may add in another order; weights and arithmetic are the same
THREADS = (1, 2)


def prebuilt_checks(bundle: Bundle, model: BaseRuntime, golden: Golden) -> Tuple[List[Check], List[str]]:
    """Compare the bundle's compiled files with what `model` computes.

    Args:
        bundle: opened.
        model: compiled from the bundle's source, where there is a compiler.
        golden: every stored image, clean and attacked, is scored in batches, and the first ones alone.

    Returns:
        Checks, and notes on what could not be compared here.
    """
    checks, notes = [], []
    for item in format_named(bundle.manifest.artifact.format).prebuilt(bundle, model):
        if item.open is None:
            notes.append(f"{item.name}: {item.reason}")
        else:
            checks.append(_compared(item, model, np.concatenate([golden.clean, golden.attacked])))
    return checks, notes


def _compared(item: Prebuilt, model: BaseRuntime, images: np.ndarray) -> Check:
    expected = _logits(model, images)
    for threads in THREADS:
        assert item.open is not None
        try:
            with item.open(threads) as library:
                error = relative_error(_logits(library, images), expected)
        except RobustEdgeError as cause:
            return Check("library_differs", True, f"{item.name} does not run: {cause}")
        if not error <= TOLERANCE:
            detail = (
                f"{item.name} on {threads} thread{'s' * (threads > 1)} gives logits that differ by {error:.2g} "
                f"(relative, tolerance {TOLERANCE:.0e}) from those of the source in the bundle"
            )
            return Check("library_differs", True, detail)
    return Check("library_differs", False, f"{item.name} computes what its source computes")


def _logits(model: BaseRuntime, images: np.ndarray) -> np.ndarray:
    """(n, K): logits of all images in batches, then of the first ones alone."""
    score = score_of(model)
    return np.concatenate([score(images), *(score(image[None]) for image in images[:ALONE])])
