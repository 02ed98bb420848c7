"""Run an artifact on this machine with the arithmetic of its device, and compare ONNX Runtime's 8-bit kernels."""

from __future__ import annotations

import numpy as np

from robust_edge_exporters.kernel_noise import other_kernels
from robust_edge_exporters.target import targets
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats.table import format_named
from robust_edge_runtimes.scoring import agreement, relative_error, score_of


def device_runtime(bundle: Bundle, *, threads: int = 1) -> BaseRuntime:
    """Open the artifact's runtime, with the arithmetic of its device where this CPU's may differ.

    Raises:
        BundleError, BackendUnavailable: as `load`.
    """
    row, artifact = targets().get(bundle.manifest.target), bundle.manifest.artifact
    full_range = row is not None and row.format == artifact.format and row.full_range(artifact.precision)
    kind = format_named(artifact.format).exact_runtime(full_range)
    return kind(bundle.artifact_path, bundle.manifest, threads=threads).open()


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
