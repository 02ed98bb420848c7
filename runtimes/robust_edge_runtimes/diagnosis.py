"""What this machine can run, and how to install what is missing: the findings of `doctor`."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import shutil
from typing import Optional, Tuple

from robust_edge_runtimes.bench.energy import find_meter
from robust_edge_runtimes.core.environment import Machine, machine
from robust_edge_runtimes.core.extras import extra_of
from robust_edge_runtimes.core.version import __version__
from robust_edge_runtimes.formats.backends import Backend, backends

TRAINING = "compress, evaluate, export, verify --mode surrogate and whitebox"
TRAINING_MODULES = (
    "torch",
    "torchvision",
    "onnx",
    "onnxscript",
    "scipy",
    "safetensors",
    "sklearn",
    "matplotlib",
    "jinja2",
    "yaml",
)


@dataclasses.dataclass(frozen=True)
class Capability:
    """A package or tool that may be installed.

    Attributes:
        enables: what it is needed for.
        version: None where it is missing.
        remedy: how to install it.
    """

    name: str
    enables: str
    version: Optional[str]
    remedy: str


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The machine, the artifact formats that it runs, and the other packages and tools."""

    robust_edge: str
    machine: Machine
    backends: Tuple[Backend, ...]
    capabilities: Tuple[Capability, ...]


def diagnose() -> Diagnosis:
    """Try every backend and look for every package and tool."""
    modules = (
        ("onnxruntime", "export, and ONNX bundles"),
        ("PIL", "predict on image files"),
        *((name, TRAINING) for name in TRAINING_MODULES),
        ("pyautoattack", "evaluate --attack autoattack"),
        ("captum", "saliency maps in the report"),
    )
    found = [Capability(name, enables, _version(name), _remedy(name)) for name, enables in modules]
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    found.append(
        Capability("C compiler", "bundles of the C engine", compiler, "apt install gcc (or as on your system)")
    )
    meter = find_meter()
    counter, reason = (None, meter) if isinstance(meter, str) else (meter.name, "")
    found.append(Capability("energy counter", "joules per image in bench", counter, reason))
    return Diagnosis(__version__, machine(), backends(), tuple(found))


def _remedy(module: str) -> str:
    if module == "PIL":  # a device needs nothing else of the extra that it belongs to
        return "pip install pillow"
    return f"pip install 'robust-edge[{extra_of(module)}]'"


def _version(module: str) -> Optional[str]:
    try:
        return str(getattr(importlib.import_module(module), "__version__", "installed"))
    except RuntimeError as cause:  # torchvision with a CPU-only torch, which torchvision_compat.py handles
        return importlib.metadata.version(module) if "torchvision::nms" in str(cause) else None
    except Exception:  # an installed but broken package, such as one that misses a shared library, counts as missing
        return None
