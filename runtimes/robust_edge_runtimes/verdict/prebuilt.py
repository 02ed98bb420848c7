"""Compiled files that a bundle holds beside their source, and that a device loads instead of it.

Only equal bytes show that a library is its source: one with a condition of its own answers the images here as the
source does.
"""

from __future__ import annotations

from typing import List

import numpy as np

from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.errors import RobustEdgeError
from robust_edge_runtimes.core.golden import Golden
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats.format import Prebuilt
from robust_edge_runtimes.formats.table import format_named
from robust_edge_runtimes.scoring import relative_error, score_of
from robust_edge_runtimes.verdict.checks import SINGLE_IMAGES
from robust_edge_runtimes.verdict.flags import Check

TOLERANCE = 1e-6  # two compilers may add in another order; weights and arithmetic are the same
THREADS = (1, 2)


def prebuilt_checks(bundle: Bundle, model: BaseRuntime, golden: Golden) -> List[Check]:
    """Compare the bundle's compiled files with what the compiler here makes of the source, byte by byte.

    A file that is other bytes is loaded, where this machine can, to tell a file that computes something else
    (`library_differs`) from one that may be another compiler's (`library_unverified`).

    Args:
        bundle: opened.
        model: compiled from the bundle's source, where there is a compiler.
        golden: every stored image, clean and attacked, is scored in batches, and the first ones alone.
    """
    found = format_named(bundle.manifest.artifact.format).prebuilt(bundle, model)
    return [_compared(item, model, golden) for item in found]


def _compared(item: Prebuilt, model: BaseRuntime, golden: Golden) -> Check:
    if item.equal:
        return Check("library_unverified", False, f"{item.name} is what the compiler here makes of its source")
    problem = _difference(item, model, np.concatenate([golden.clean, golden.attacked]))
    if problem:
        return Check("library_differs", True, f"{item.name} {problem}")
    return Check("library_unverified", True, f"{item.name}: {item.reason}")


def _difference(item: Prebuilt, model: BaseRuntime, images: np.ndarray) -> str:
    """How the file's logits differ from those of the source; empty where they do not, or it cannot be loaded here."""
    if item.open is None:
        return ""
    expected = _logits(model, images)
    for threads in THREADS:
        try:
            with item.open(threads) as library:
                error = relative_error(_logits(library, images), expected)
        except RobustEdgeError as cause:
            return f"does not run: {cause}"
        if not error <= TOLERANCE:
            return (
                f"on {threads} thread{'s' * (threads > 1)} gives logits that differ by {error:.2g} (relative, "
                f"tolerance {TOLERANCE:.0e}) from those of the source in the bundle"
            )
    return ""


def _logits(model: BaseRuntime, images: np.ndarray) -> np.ndarray:
    """(n, K): logits of all images in batches, then of the first ones alone."""
    score = score_of(model)
    return np.concatenate([score(images), *(score(image[None]) for image in images[:SINGLE_IMAGES])])
