"""Run an artifact on this machine with the arithmetic of its device, and compare ONNX Runtime's 8-bit kernels."""

from __future__ import annotations

import numpy as np

from robust_edge_exporters.parity import checking_runtime
from robust_edge_exporters.target import targets
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats.onnx.runtime import OnnxRuntime
from robust_edge_runtimes.formats.onnx.unfused import UnfusedOnnxRuntime, has_vnni
from robust_edge_runtimes.load import load
from robust_edge_runtimes.scoring import agreement, relative_error, score_of

INT8_STEPS, INT8_CAP = 0.05, 0.2
NOISE_IMAGES, NOISE_MARGIN = 256, 2.0


def device_runtime(bundle: Bundle, *, threads: int = 1) -> BaseRuntime:
    """Open the artifact's runtime, with the arithmetic of its device where this CPU's may differ.

    Raises:
        BundleError, BackendUnavailable: as `load`.
    """
    row = targets().get(bundle.manifest.target)
    if row is None or row.format != bundle.manifest.artifact.format or row.format != "onnx":
        return load(bundle, threads=threads, from_source=True)
    return checking_runtime(bundle, row, threads=threads).open()


def other_kernels(bundle: Bundle, model: BaseRuntime, images: np.ndarray) -> np.ndarray | None:
    """(N, K) logits of an 8-bit ONNX file with fused kernels where `model` has unfused ones, and the other way round.

    None for any other artifact.
    """
    if bundle.manifest.artifact.precision != "int8" or bundle.manifest.artifact.format != "onnx":
        return None
    kind = OnnxRuntime if isinstance(model, UnfusedOnnxRuntime) else UnfusedOnnxRuntime
    with kind(bundle.artifact_path, bundle.manifest, threads=model.threads) as other:
        return score_of(other)(images)


def kernel_notes(bundle: Bundle, model: BaseRuntime, images: np.ndarray) -> tuple[str, ...]:
    """What this CPU's own kernels make of a file that was judged without them; empty where they judged it."""
    if not isinstance(model, UnfusedOnnxRuntime):
        return ()
    own, here = score_of(model)(images), other_kernels(bundle, model, images)
    assert here is not None
    error, same = relative_error(here, own), 100 * agreement(here, own)
    vnni = {True: "with VNNI", False: "without VNNI, which saturates", None: "with or without VNNI"}[has_vnni()]
    return (
        f"judged by {model.arithmetic}, as on its device; ONNX Runtime's 8-bit kernels on this CPU ({vnni}) give "
        f"logits {error:.2g} from that (relative), the class agrees on {same:.2f}%",
    )


def int8_tolerance(bundle: Bundle, model: BaseRuntime, images: np.ndarray) -> float:
    """The largest relative logit error between an 8-bit artifact and its twin that rounding explains.

    It is estimated from the difference between ONNX Runtime's fused and unfused kernels on the same file.
    """
    first = images[:NOISE_IMAGES]
    other = other_kernels(bundle, model, first)
    noise = 0.0 if other is None else relative_error(other, score_of(model)(first))
    return min(max(INT8_STEPS, NOISE_MARGIN * noise), INT8_CAP)
