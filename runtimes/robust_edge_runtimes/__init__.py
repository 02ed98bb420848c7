"""Open, run, time and attack a bundle on the device; needs numpy and the backend of the bundle only."""

from robust_edge_runtimes.core.bundle import Bundle, open_bundle
from robust_edge_runtimes.core.errors import (
    BackendUnavailable,
    BundleError,
    ExportError,
    InputError,
    RobustEdgeError,
)
from robust_edge_runtimes.core.golden import Golden
from robust_edge_runtimes.core.runtime import BaseRuntime, Runtime, RuntimeInfo
from robust_edge_runtimes.core.version import __version__ as __version__
from robust_edge_runtimes.load import load

__all__ = [
    "BackendUnavailable",
    "BaseRuntime",
    "Bundle",
    "BundleError",
    "ExportError",
    "Golden",
    "InputError",
    "RobustEdgeError",
    "Runtime",
    "RuntimeInfo",
    "load",
    "open_bundle",
]
