"""Bundles: the artifact, the proof, and all that a stranger needs on the device.

Written to a temporary folder, opened and run there through the same runtime as on the device, and only
then renamed: a bundle that exists has passed.
"""

from __future__ import annotations

import dataclasses
import string
from importlib import resources
from pathlib import Path

from torch import nn

from robust_edge_exporters.artifact import ExportedArtifact
from robust_edge_exporters.registry import exporter
from robust_edge_exporters.target import Target
from robust_edge_runtimes.bundle import GOLDEN, Golden, seal, write_golden
from robust_edge_runtimes.errors import ExportError
from robust_edge_runtimes.files import new_directory
from robust_edge_runtimes.load import load
from robust_edge_runtimes.manifest import (
    SCHEMA_VERSION,
    Artifact,
    Expected,
    Manifest,
    Source,
    Sparsity,
)
from robust_edge_runtimes.verify import Parity, parity_of

MAX_LOGIT_ERROR = {"fp32": 1e-4}
TEMPLATES = ("run.py", "Dockerfile", "README.md")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ExportRequest:
    """A checkpoint on its way to a target.

    Attributes:
        model: in evaluation mode, on the CPU.
        shape: (C, H, W) of one image.
        sparsity: of the checkpoint; the artifact may have no other non-zeros.
        golden: images and the checkpoint's own logits on them.
    """

    model: nn.Module
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    sparsity: Sparsity
    source: Source
    expected: Expected
    golden: Golden
    target: Target


@dataclasses.dataclass(frozen=True)
class Exported:
    """A bundle that has been written, opened again and compared."""

    path: str
    manifest: Manifest
    parity: Parity


def export_bundle(request: ExportRequest, path: Path, *, overwrite: bool = False) -> Exported:
    """Write one bundle.

    Args:
        request: what to export.
        path: the bundle's folder; it appears only when everything has been checked.
        overwrite: replace an older one.

    Raises:
        ExportError: the target cannot express the network, or the written artifact computes something else.
        InputError: `path` is taken.
        BackendUnavailable: the target's runtime is not installed here, so the artifact cannot be checked.
    """
    with new_directory(path, overwrite=overwrite) as folder:
        artifact = exporter(request.target.format)(request.model, request.shape, request.target, str(folder))
        _check_sparsity(request.sparsity, artifact.sparsity)
        write_golden(folder / GOLDEN, request.golden)
        (folder / "labels.txt").write_text("".join(f"{name}\n" for name in request.classes), encoding="utf-8")
        _write_texts(folder, request, artifact)
        manifest = seal(folder, _manifest(request, artifact))
        parity = _checked_parity(folder, request.golden, artifact.precision)
    return Exported(str(path), manifest, parity)


def _check_sparsity(checkpoint: Sparsity, artifact: Sparsity) -> None:
    if checkpoint.weights != artifact.weights or artifact.nonzero > checkpoint.nonzero:
        raise ExportError(
            f"the artifact holds {artifact.nonzero} non-zeros of {artifact.weights} prunable weights, the checkpoint "
            f"{checkpoint.nonzero} of {checkpoint.weights}; the export changed the network"
        )


def _write_texts(folder: Path, request: ExportRequest, artifact: ExportedArtifact) -> None:
    target = request.target
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in target.requirements), encoding="utf-8")
    values = {
        "target": target.name,
        "description": target.description,
        "image": target.image,
        "python": target.python,
        "arch": request.source.arch,
        "kept": f"{100 * artifact.sparsity.keep:.1f}%",
        "clean": f"{100 * request.expected.clean_accuracy:.1f}%",
        "robust": f"{100 * request.expected.robust_accuracy:.1f}%",
        "attack": f"{request.expected.attack.name.upper()}-{request.expected.attack.steps}",
        "eps": f"{request.expected.attack.eps:.4g}",
        "images": str(request.expected.images),
        "limits": "\n".join(f"- {limit}" for limit in target.limits),
    }
    templates = resources.files("robust_edge_exporters") / "templates"
    for name in TEMPLATES:
        text = (templates / name).read_text(encoding="utf-8")
        filled = text if name.endswith(".py") else string.Template(text).substitute(values)
        (folder / name).write_text(filled, encoding="utf-8")


def _manifest(request: ExportRequest, artifact: ExportedArtifact) -> Manifest:
    """All that is known before the files are sealed."""
    return Manifest(
        schema_version=SCHEMA_VERSION,
        target=request.target.name,
        artifact=Artifact(
            file=artifact.file,
            format=artifact.format,
            precision=artifact.precision,
            sha256="",
            bytes=0,
            opset=artifact.opset,
            ir_version=artifact.ir_version,
        ),
        input=artifact.input,
        input_range=(0.0, 1.0),
        output=artifact.output,
        classes=request.classes,
        sparsity=artifact.sparsity,
        source=request.source,
        expected=request.expected,
        files={},
    )


def _checked_parity(folder: Path, golden: Golden, precision: str) -> Parity:
    with load(folder) as model:
        parity = parity_of(model, golden)
    allowed = MAX_LOGIT_ERROR[precision]
    if parity.max_logit_error > allowed or parity.argmax_agreement < 1:
        raise ExportError(
            f"the written artifact differs from the checkpoint: logits by {parity.max_logit_error:.2g} (relative, at "
            f"most {allowed:.2g}), classes agree on {100 * parity.argmax_agreement:.2f}%; nothing was written"
        )
    return parity
