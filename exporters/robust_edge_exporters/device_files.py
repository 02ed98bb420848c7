"""The files of a bundle that a person uses on the device: run.py, README, requirements, Dockerfile."""

from __future__ import annotations

import json
import string
from importlib import resources
from pathlib import Path

from robust_edge_exporters.artifact import ExportedArtifact
from robust_edge_exporters.schema import manifest_schema
from robust_edge_exporters.target import Target
from robust_edge_runtimes.core.manifest import Expected, Source
from robust_edge_runtimes.verdict.verify import Parity

NEEDS = {
    "native": "numpy and a C compiler (none on the kind of machine that exported it)",
    "onnx": "numpy and onnxruntime",
    "onnx-cuda": "numpy, onnxruntime-gpu and CUDA",
    "csr": "numpy and torch",
    "tensorrt": "numpy and TensorRT",
}
BUILD = "python3 build_engine.py    # minutes, once per device; run.py would do it at first use"
INSTALL = "python3 -m pip install -r requirements.txt"


def write_scripts(folder: Path, target: Target, classes: tuple[str, ...]) -> None:
    """Write what runs: run.py with the target's backend, requirements, Dockerfile, labels, schema."""
    backend = _template(f"backends/{target.format}.py")
    run = _template("run.py").replace("# $backend\n", backend).replace("$needs", NEEDS[target.format])
    dockerfile = string.Template(_template(f"dockerfiles/{target.format}"))
    _write(folder / "run.py", run)
    _write(folder / "manifest.schema.json", json.dumps(manifest_schema(), indent=2) + "\n")
    _write(folder / "requirements.txt", _lines(target.requirements))
    _write(folder / "labels.txt", _lines(classes))
    if target.format == "native":
        engine = resources.files("robust_edge_runtimes") / "formats" / "native" / "engine.py"
        _write(folder / "engine.py", engine.read_text(encoding="utf-8"))
    _write(folder / "Dockerfile", dockerfile.substitute(description=target.description, image=target.image))


def write_readme(
    folder: Path, target: Target, source: Source, expected: Expected, artifact: ExportedArtifact, parity: Parity
) -> None:
    """Write README.md: what this is, how good it is, what to type."""
    commands = [
        BUILD if _brings_its_runtime(target) else INSTALL,
        "python3 run.py replay      # the stored attack images, scored here: exit 0 if it held",
        "python3 run.py bench       # latency of one image and of 100",
    ]
    values = {
        "target": target.name,
        "description": target.description,
        "python": target.python,
        "runtime": target.runtime,
        "arch": source.arch,
        "kept": f"{100 * artifact.sparsity.keep:.1f}%",
        "clean": f"{100 * expected.clean_accuracy:.1f}%",
        "robust": f"{100 * expected.robust_accuracy:.1f}%",
        "attack": f"{expected.attack.name.upper()}-{expected.attack.steps}",
        "eps": f"{expected.attack.eps:.4g}",
        "images": str(expected.images),
        "error": f"{parity.max_logit_error:.1g}",
        "agreement": f"{100 * parity.argmax_agreement:.2f}%",
        "commands": "\n".join(f"    {command}" for command in commands),
        "limits": "\n".join(f"- {limit}" for limit in (*target.limits, *artifact.notes)),
    }
    _write(folder / "README.md", string.Template(_template("README.md")).substitute(values))


def _brings_its_runtime(target: Target) -> bool:
    """Whether the device's system has TensorRT, as a Jetson's does; elsewhere pip installs it."""
    return target.format == "tensorrt" and not any(line.startswith("tensorrt") for line in target.requirements)


def _template(name: str) -> str:
    return (resources.files("robust_edge_exporters") / "templates" / name).read_text(encoding="utf-8")


def _lines(items: tuple[str, ...]) -> str:
    return "".join(f"{item}\n" for item in items)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
