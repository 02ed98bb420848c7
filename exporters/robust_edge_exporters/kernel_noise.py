"""How far an artifact's logits may be from its own on another machine, whose kernels round or add in another order."""

from __future__ import annotations

import numpy as np
from torch import nn

from robust_edge_exporters.formats.table import format_named
from robust_edge_exporters.target import Target
from robust_edge_exporters.tolerance import logit_tolerance
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats.table import format_named as format_named_on_device
from robust_edge_runtimes.scoring import relative_error, score_of

INT8_STEPS, INT8_CAP = 0.05, 0.2
NOISE_IMAGES, NOISE_MARGIN = 256, 2.0


def artifact_tolerance(
    bundle: Bundle, target: Target, network: nn.Module, model: BaseRuntime, images: np.ndarray, tolerance: float
) -> float:
    """The largest relative difference between an artifact's logits on two machines that rounding explains.

    Args:
        bundle: holds the artifact.
        target: its row.
        network: the checkpoint, in evaluation mode on the CPU.
        model: the artifact's open runtime.
        images: (N, C, H, W) float32 in [0, 1].
        tolerance: of the artifact against the checkpoint; the result where the device's own runtime does not run on the
            exporting machine, or where the artifact rounds no more than the checkpoint.
    """
    precision = bundle.manifest.artifact.precision
    if target.checked_with is not None:
        return tolerance
    if precision == "int8":
        return min(tolerance, int8_tolerance(bundle, model, images))
    if precision == "fp16" and not format_named(target.format).device_rounds:
        return min(tolerance, logit_tolerance(network, images, "fp32", target))
    return tolerance


def int8_tolerance(bundle: Bundle, model: BaseRuntime, images: np.ndarray) -> float:
    """The largest relative difference that rounding explains between the logits of one 8-bit file.

    It is estimated from the difference between ONNX Runtime's fused and unfused kernels on the same file.
    """
    first = images[:NOISE_IMAGES]
    other = other_kernels(bundle, model, first)
    noise = 0.0 if other is None else relative_error(other, score_of(model)(first))
    return min(max(INT8_STEPS, NOISE_MARGIN * noise), INT8_CAP)


def other_kernels(bundle: Bundle, model: BaseRuntime, images: np.ndarray) -> np.ndarray | None:
    """(N, K) logits of an 8-bit file with other kernels than those of `model`; None where there are no others."""
    if bundle.manifest.artifact.precision != "int8":
        return None
    kind = format_named_on_device(bundle.manifest.artifact.format).other_kernels(model)
    if kind is None:
        return None
    with kind(bundle.artifact_path, bundle.manifest, threads=model.threads) as other:
        return score_of(other)(images)
