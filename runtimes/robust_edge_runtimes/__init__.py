"""Open a bundle on the device, run it, time it and attack it: numpy and one backend, nothing else."""

__version__ = "0.1.0"

from robust_edge_runtimes.bundle import Bundle, Golden, open_bundle
from robust_edge_runtimes.errors import (
    BackendUnavailable,
    BundleError,
    ExportError,
    InputError,
    RobustEdgeError,
)
from robust_edge_runtimes.load import load
from robust_edge_runtimes.runtime import BaseRuntime, Runtime, RuntimeInfo

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
