"""The table of artifact formats that have a differentiable twin; a row's function is imported when it is used."""

from __future__ import annotations

from collections.abc import Callable

from robust_edge.verification.twins.twin import Differentiable, TwinError
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.references import resolve

TWINS = {
    "csr": "robust_edge.verification.twins.csr:csr_twin",
    "onnx": "robust_edge.verification.twins.onnx:onnx_twin",
    "onnx-cuda": "robust_edge.verification.twins.onnx:onnx_twin",
    "tensorrt": "robust_edge.verification.twins.onnx:onnx_twin",
}
"""Name of the format, as in the manifest, to the function that reads a twin from a bundle."""


def has_twin(artifact_format: str) -> bool:
    """Whether artifacts of this format have a twin; otherwise the checkpoint replaces it."""
    return artifact_format in TWINS


def twin_of(bundle: Bundle) -> Differentiable:
    """The twin of a bundle's artifact.

    Raises:
        TwinError: the format has none, or the artifact contains an operation that cannot be differentiated.
    """
    artifact = bundle.manifest.artifact
    if not has_twin(artifact.format):
        raise TwinError(f"artifacts of format {artifact.format!r} have no twin (those that do: {', '.join(TWINS)})")
    build: Callable[[Bundle], Differentiable] = resolve(TWINS[artifact.format])
    return build(bundle)
