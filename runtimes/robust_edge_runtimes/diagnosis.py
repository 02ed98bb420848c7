"""What this machine can run, and how to install what is missing: the findings of `doctor`."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import shutil
from typing import Iterator, Optional, Sequence, Tuple

from robust_edge_runtimes.bench.energy import find_meter
from robust_edge_runtimes.core.environment import Machine, machine
from robust_edge_runtimes.core.extras import module_of, optional_packages
from robust_edge_runtimes.core.version import __version__
from robust_edge_runtimes.formats.backends import Backend, backends

EXTRAS = {
    "onnxruntime": "export, and ONNX bundles",
    "train": "compress, evaluate, export",
    "attack": "the AutoAttack sets of evaluate",
    "interpret": "saliency maps in the report",
    "tensorboard": "compress --tensorboard",
    "timm": "networks of timm, --arch timm/NAME",
    "slurm": "sweep --launcher submitit",
    "openvino": "a comparison in benchmarks/sparse_engine.py",
}
"""What the packages of an extra are needed for. Extras that are not listed belong to an artifact format, whose probe
tries them."""
PREDICT = "predict on image files, and data sets in folders"


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


def diagnose(host_modes: Sequence[str] = ()) -> Diagnosis:
    """Try every backend and look for every package and tool.

    Args:
        host_modes: names of the verify modes that need the packages of extra `train`.
    """
    found = [
        Capability(module, _enables(module, extra, host_modes), _version(module), _remedy(module, extra))
        for module, extra in _modules()
    ]
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    found.append(
        Capability("C compiler", "bundles of the C engine", compiler, "apt install gcc (or as on your system)")
    )
    meter = find_meter()
    counter, reason = (None, meter) if isinstance(meter, str) else (meter.name, "")
    found.append(Capability("energy counter", "joules per image in bench", counter, reason))
    return Diagnosis(__version__, machine(), backends(), tuple(found))


def _modules() -> Iterator[Tuple[str, str]]:
    """Every package that a feature of ours needs, as it is imported, with its extra."""
    packages = optional_packages().items()
    for extra in EXTRAS:
        yield from ((module_of(distribution), owner) for distribution, owner in packages if owner == extra)


def _enables(module: str, extra: str, host_modes: Sequence[str]) -> str:
    modes = f", verify --mode {' and '.join(host_modes)}" if extra == "train" and host_modes else ""
    return PREDICT if module == "PIL" else EXTRAS[extra] + modes


def _remedy(module: str, extra: str) -> str:
    if module == "PIL":  # a device needs nothing else of the extra that it belongs to
        return "pip install pillow"
    return f"pip install 'robust-edge[{extra}]'"


def _version(module: str) -> Optional[str]:
    try:
        return str(getattr(importlib.import_module(module), "__version__", "installed"))
    except RuntimeError as cause:  # torchvision with a CPU-only torch, which torchvision_compat.py handles
        return importlib.metadata.version(module) if "torchvision::nms" in str(cause) else None
    except Exception:  # an installed but broken package, such as one that misses a shared library, counts as missing
        return None
