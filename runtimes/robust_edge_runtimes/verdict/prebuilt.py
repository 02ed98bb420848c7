"""Compiled files that a bundle holds beside their source, and that a device loads instead of it.

Only equal bytes show that a library is its source: one with a condition of its own would answer the images here as the
source does, and one that is loaded could change the verdict itself.
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
