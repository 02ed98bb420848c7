"""The software and the machine of a run."""

from __future__ import annotations

import dataclasses
from importlib import metadata
from typing import Any

import torch

from robust_edge_runtimes.core.environment import machine
from robust_edge_runtimes.core.extras import optional_packages
from robust_edge_runtimes.core.version import __version__


def versions() -> dict[str, str]:
    """The versions of robust-edge, of numpy, and of every optional package that is installed."""
    found = {"robust-edge": __version__}
    for package in ("numpy", *optional_packages()):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """Versions, machine, devices and threads."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": versions(),
        "machine": dataclasses.asdict(machine()),
        "cuda_devices": devices,
        "torch_threads": torch.get_num_threads(),
    }
