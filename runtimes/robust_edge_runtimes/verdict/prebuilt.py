"""Compiled files that a bundle holds beside their source, and that a device loads instead of it.

Only equal bytes show that a library was compiled from its source. A library with a hidden condition could give the same
logits as the source on every image that is tried here, and a library that is loaded could change the verdict itself.
"""

from __future__ import annotations

from typing import List

from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats.format import Origin
from robust_edge_runtimes.formats.table import format_named
from robust_edge_runtimes.verdict.flags import Check


def prebuilt_checks(bundle: Bundle, model: BaseRuntime) -> List[Check]:
    """Compare the bundle's compiled files with what the compiler here makes of the source, byte by byte.

    Args:
        bundle: opened.
        model: compiled from the bundle's source, where there is a compiler.
    """
    found = format_named(bundle.manifest.artifact.format).origins(bundle, model)
    return [
        Check(
            "library_differs" if origin is Origin.DIFFERENT else "library_unverified",
            origin is not Origin.EQUAL,
            f"{name}: {origin.value}",
        )
        for name, origin in found.items()
    ]
