"""Which extra of this distribution provides an optional package, read from the distribution's own metadata."""

from __future__ import annotations

import collections
import functools
import importlib.metadata
import re
from typing import Dict, Mapping, Optional, Set

DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml"}
"""Distributions that are named otherwise than what they import as."""


def extra_of(module: str) -> Optional[str]:
    """The extra that provides a module, the smallest where several do; None where none does.

    Args:
        module: as in an import statement; a submodule belongs to its package.
    """
    package = module.partition(".")[0]
    distribution = DISTRIBUTIONS.get(package, package.replace("_", "-"))
    providers = [extra for extra, distributions in _extras().items() if distribution in distributions]
    return min(providers, key=lambda extra: len(_extras()[extra]), default=None)


@functools.lru_cache(maxsize=None)
def _extras() -> Mapping[str, Set[str]]:
    """Distributions by the extra that requires them; empty in a source tree that was never installed."""
    try:
        requirements = importlib.metadata.requires("robust-edge") or []
    except importlib.metadata.PackageNotFoundError:
        requirements = []
    extras: Dict[str, Set[str]] = collections.defaultdict(set)
    for requirement in requirements:
        found = re.match(r"([\w.-]+).*\bextra *== *['\"]([\w-]+)", requirement)
        if found:
            extras[found.group(2)].add(found.group(1).lower())
    return extras
