"""What this machine can run."""

from __future__ import annotations

import dataclasses
import importlib
import shutil
from typing import Optional, Tuple

from robust_edge_runtimes import __version__
from robust_edge_runtimes.environment import Machine, machine
from robust_edge_runtimes.tables import table

TRAINING = "compress, evaluate, export, verify --mode surrogate"
TRAINING_MODULES = ("torch", "torchvision", "onnx", "onnxscript", "safetensors", "sklearn", "matplotlib", "yaml")


@dataclasses.dataclass(frozen=True)
class Capability:
    """One thing that may be here: its version, or None and the command that brings it."""

    name: str
    enables: str
    version: Optional[str]
    remedy: str


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The machine and its capabilities."""

    robust_edge: str
    machine: Machine
    capabilities: Tuple[Capability, ...]


def diagnose() -> Diagnosis:
    """Look for every backend and tool."""
    modules = (
        ("onnxruntime", "ONNX bundles on the CPU", "pip install 'robust-edge[onnxruntime]'"),
        ("PIL", "predict on picture files", "pip install pillow"),
        *((name, TRAINING, "pip install 'robust-edge[train]'") for name in TRAINING_MODULES),
    )
    found = [Capability(name, enables, _version(name), remedy) for name, enables, remedy in modules]
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    found.append(Capability("C compiler", "the sparse engine", compiler, "apt install gcc (or your system's way)"))
    return Diagnosis(__version__, machine(), tuple(found))


def diagnosis_table(diagnosis: Diagnosis) -> str:
    """The diagnosis for a person."""
    facts = diagnosis.machine
    rows = [
        [item.name, item.version or "missing", item.enables, "" if item.version else item.remedy]
        for item in diagnosis.capabilities
    ]
    return "\n".join(
        [
            f"robust-edge {diagnosis.robust_edge}, Python {facts.python}, numpy {facts.numpy}, {facts.system}",
            f"{facts.cpu} ({facts.architecture}), {facts.cores} core(s)"
            + (f", governor {facts.governor}" if facts.governor else "")
            + (f", {facts.power_mode}" if facts.power_mode else ""),
            "",
            table(["what", "version", "for", "to get it"], rows),
        ]
    )


def _version(module: str) -> Optional[str]:
    try:
        return str(getattr(importlib.import_module(module), "__version__", "installed"))
    except Exception:  # installed and broken (a missing shared library, say) is not there either
        return None
