"""Run an artifact on this machine with the arithmetic of its device, and compare ONNX Runtime's 8-bit kernels."""

from __future__ import annotations

import numpy as np

from robust_edge_exporters.target import targets
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats.table import format_named
from robust_edge_runtimes.scoring import agreement, relative_error, score_of

INT8_STEPS, INT8_CAP = 0.05, 0.2
NOISE_IMAGES, NOISE_MARGIN = 256, 2.0


def device_runtime(bundle: Bundle, *, threads: int = 1) -> BaseRuntime:
    """Open the artifact's runtime, with the arithmetic of its device where this CPU's may differ.

    Raises:
        BundleError, BackendUnavailable: as `load`.
    """
    row, artifact = targets().get(bundle.manifest.target), bundle.manifest.artifact
    full_range = row is not None and row.format == artifact.format and row.full_range(artifact.precision)
    kind = format_named(artifact.format).exact_runtime(full_range)
    return kind(bundle.artifact_path, bundle.manifest, threads=threads).open()


def other_kernels(bundle: Bundle, model: BaseRuntime, images: np.ndarray) -> np.ndarray | None:
    """(N, K) logits of an 8-bit file with other kernels than those of `model`; None where there are no others."""
    if bundle.manifest.artifact.precision != "int8":
        return None
    kind = format_named(bundle.manifest.artifact.format).other_kernels(model)
    if kind is None:
        return None
    with kind(bundle.artifact_path, bundle.manifest, threads=model.threads) as other:
        return score_of(other)(images)


def kernel_notes(bundle: Bundle, model: BaseRuntime, images: np.ndarray) -> tuple[str, ...]:
    """A note on this CPU's own kernels if the artifact was judged without them."""
    row = format_named(bundle.manifest.artifact.format)
    if type(model) is row.runtime_from_source():
        return ()
    own, here = score_of(model)(images), other_kernels(bundle, model, images)
    if here is None:
        return ()
    error, same = relative_error(here, own), 100 * agreement(here, own)
    return (
        f"judged by {model.info.provider}, as on its device; {row.kernels_here()} give logits {error:.2g} from that "
        f"(relative), the class agrees on {same:.2f}%",
    )


def int8_tolerance(bundle: Bundle, model: BaseRuntime, images: np.ndarray) -> float:
    """The largest relative logit error between an 8-bit artifact and its twin that rounding explains.

    It is estimated from the difference between ONNX Runtime's fused and unfused kernels on the same file.
    """
    first = images[:NOISE_IMAGES]
    other = other_kernels(bundle, model, first)
    noise = 0.0 if other is None else relative_error(other, score_of(model)(first))
    return min(max(INT8_STEPS, NOISE_MARGIN * noise), INT8_CAP)
