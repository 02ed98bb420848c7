"""The optional packages of this distribution by extra, read from the distribution's own metadata."""

from __future__ import annotations

import functools
import importlib.metadata
import re
import sys
from typing import Dict, Mapping, Optional

MODULES = {"pillow": "PIL", "scikit-learn": "sklearn", "pyyaml": "yaml"}
"""What a distribution imports as, where its name does not say so."""

COLLECTIONS = ("all", "dev")
"""Extras that no feature needs: the union of others, and the tools of developers."""


def extra_of(module: str) -> Optional[str]:
    """The extra that provides a module, the smallest where several do; None where none does.

    Args:
        module: as in an import statement; a submodule belongs to its package.
    """
    package = module.partition(".")[0]
    providers = [extra for extra, found in _extras().items() if package in map(module_of, found)]
    return min(providers, key=lambda extra: len(_extras()[extra]), default=None)


def optional_packages() -> Mapping[str, str]:
    """Distribution to the smallest extra that provides it, for all that features need, in order of the extras."""
    extras = [found for extra, found in _extras().items() if extra not in COLLECTIONS]
    names = dict.fromkeys(name for found in extras for name, needed in found.items() if needed)
    return {name: extra_of(module_of(name)) or "" for name in names}


def module_of(distribution: str) -> str:
    """What a distribution imports as."""
    return MODULES.get(distribution, distribution.replace("-", "_"))


@functools.lru_cache(maxsize=None)
def _extras() -> Mapping[str, Mapping[str, bool]]:
    """Extra to the distributions that it requires, and whether this Python needs them.

    Empty in a source tree that was never installed.
    """
    try:
        requirements = importlib.metadata.requires("robust-edge") or []
    except importlib.metadata.PackageNotFoundError:
        requirements = []
    extras: Dict[str, Dict[str, bool]] = {}
    for requirement in requirements:
        found = re.match(r"([\w.-]+).*\bextra *== *['\"]([\w-]+)", requirement)
        if found:
            needed = not _in_the_standard_library(requirement)
            extras.setdefault(found.group(2), {})[found.group(1).lower()] = needed
    return extras


def _in_the_standard_library(requirement: str) -> bool:
    """Whether only older versions of Python than this one need the package, as tomli."""
    older = re.search(r"python_version *< *['\"](\d+)\.(\d+)", requirement)
    return older is not None and sys.version_info >= (int(older.group(1)), int(older.group(2)))
