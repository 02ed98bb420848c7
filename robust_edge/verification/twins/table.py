"""The table of artifact formats that have a differentiable twin; a row's function is imported when it is used."""

from __future__ import annotations

from collections.abc import Callable

from robust_edge.verification.twins.twin import Differentiable, TwinError
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.manifest import Artifact
from robust_edge_runtimes.core.references import resolve

TWINS = {
    "csr": "robust_edge.verification.twins.csr:csr_twin",
    "native int8": "robust_edge.verification.twins.native:int8_twin",
    "onnx": "robust_edge.verification.twins.onnx:onnx_twin",
    "onnx-cuda": "robust_edge.verification.twins.onnx:onnx_twin",
    "tensorrt": "robust_edge.verification.twins.onnx:onnx_twin",
}
"""From a format, or a format and the one precision that has a twin, to the function that reads it from a bundle."""


def has_twin(artifact: Artifact) -> bool:
    """Whether artifacts of this format and precision have a twin; otherwise the checkpoint replaces it."""
    return _row(artifact) is not None


def twin_of(bundle: Bundle) -> Differentiable:
    """The twin of a bundle's artifact.

    Raises:
        TwinError: the format has none, or the artifact contains an operation that cannot be differentiated.
    """
    artifact = bundle.manifest.artifact
    row = _row(artifact)
    if row is None:
        raise TwinError(
            f"artifacts of format {artifact.format!r} in {artifact.precision} have no twin "
            f"(those that do: {', '.join(TWINS)})"
        )
    build: Callable[[Bundle], Differentiable] = resolve(row)
    return build(bundle)


def _row(artifact: Artifact) -> str | None:
    return TWINS.get(f"{artifact.format} {artifact.precision}") or TWINS.get(artifact.format)
