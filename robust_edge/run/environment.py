"""What software and machine a run was made with."""

from __future__ import annotations

import dataclasses
from importlib import metadata
from typing import Any

import torch

from robust_edge_runtimes.core.environment import machine
from robust_edge_runtimes.core.version import __version__

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "safetensors",
    "torch-pruning",
    "scikit-learn",
    "pyautoattack",
    "captum",
)


def versions() -> dict[str, str]:
    """The installed version of everything that takes part; packages that are missing are left out."""
    found = {"robust-edge": __version__}
    for package in PACKAGES:
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
