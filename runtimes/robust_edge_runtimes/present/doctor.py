"""What this machine can run, and what would bring the rest."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import shutil
from typing import List, Optional, Tuple

from robust_edge_runtimes import __version__
from robust_edge_runtimes.bench.energy import find_meter
from robust_edge_runtimes.core.environment import Machine, machine
from robust_edge_runtimes.core.extras import extra_of
from robust_edge_runtimes.formats.backends import Backend, backends
from robust_edge_runtimes.present.tables import table

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
    """One thing that may be here: its version, or None and the command that brings it."""

    name: str
    enables: str
    version: Optional[str]
    remedy: str


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The machine, the artifact formats that it runs, and what else is installed."""

    robust_edge: str
    machine: Machine
    backends: Tuple[Backend, ...]
    capabilities: Tuple[Capability, ...]


def diagnose() -> Diagnosis:
    """Try every backend, and look for every package and tool."""
    modules = (
        ("onnxruntime", "export, and ONNX bundles"),
        ("PIL", "predict on picture files"),
        *((name, TRAINING) for name in TRAINING_MODULES),
        ("pyautoattack", "evaluate --attack autoattack"),
        ("captum", "saliency maps in the report"),
    )
    found = [Capability(name, enables, _version(name), _remedy(name)) for name, enables in modules]
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    found.append(
        Capability(
            "C compiler", "sparse bundles (the sparse engine)", compiler, "apt install gcc (or your system's way)"
        )
    )
    meter = find_meter()
    counter, reason = (None, meter) if isinstance(meter, str) else (meter.name, "")
    found.append(Capability("energy counter", "joules per image in bench", counter, reason))
    return Diagnosis(__version__, machine(), backends(), tuple(found))


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
            *(line for item in diagnosis.backends for line in _backend_lines(item)),
            "",
            table(["what", "version", "for", "to get it"], rows, words=4),
        ]
    )


def _backend_lines(item: Backend) -> List[str]:
    if item.runs_on is not None:
        return [f"{item.format:9}  yes  {item.bundles}: {item.runs_on}"]
    return [f"{item.format:9}  no   {item.bundles}: {item.missing}", f"{'':16}to get it: {item.remedy}"]


def _remedy(module: str) -> str:
    if module == "PIL":  # a device needs nothing else of the extra that it belongs to
        return "pip install pillow"
    return f"pip install 'robust-edge[{extra_of(module)}]'"


def _version(module: str) -> Optional[str]:
    try:
        return str(getattr(importlib.import_module(module), "__version__", "installed"))
    except RuntimeError as cause:  # torchvision beside a CPU-only torch, which the training side works around
        return importlib.metadata.version(module) if "torchvision::nms" in str(cause) else None
    except Exception:  # installed and broken (a missing shared library, say) is not there either
        return None
