"""Whether a written artifact computes what the checkpoint computes, by the bytes that were written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from torch import nn

from robust_edge_exporters.kernel_noise import artifact_tolerance
from robust_edge_exporters.quantisation import SameLogits, TooFewBits
from robust_edge_exporters.target import Target
from robust_edge_exporters.tolerance import ill_conditioned, logit_tolerance
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.closeness import OUTLIERS
from robust_edge_runtimes.core.errors import ExportError
from robust_edge_runtimes.core.golden import MAX_TOLERANCE, Golden
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats.table import format_named
from robust_edge_runtimes.scoring import agreement, relative_error, surest
from robust_edge_runtimes.verdict.checks import not_the_checkpoint, scaled_logits
from robust_edge_runtimes.verdict.flags import raised
from robust_edge_runtimes.verdict.measurement import Parity, golden_logits, parity_between

MIN_AGREEMENT = {"fp32": 1.0, "fp16": 0.99, "int8": 0.95}
"""Smallest share of equal classes of a correct conversion, by precision of the file.

8 bits move an image that lies between two classes; there the share is that of the half of the images of which the
checkpoint is surest. What is wrong on the other half only is exported if its logits are within the tolerance: `export`
prints the share of equal classes of all images, and `verify` counts every image that the file loses.
"""

SAME = 1e-6  # spread of a class's logits over images, relative to the largest: no more than rounding of fp32
FEW = (1, 3)
"""Numbers of images that are also sent alone, since a network may depend on the size of the batch."""


class Checked(Protocol):
    """What the check needs of an export."""

    @property
    def model(self) -> nn.Module:
        """The checkpoint."""

    @property
    def golden(self) -> Golden:
        """Images with the checkpoint's logits."""

    @property
    def target(self) -> Target:
        """The row of the target."""


@dataclasses.dataclass(frozen=True, eq=False)
class CheckedArtifact:
    """What an artifact computed on the exporting machine.

    Attributes:
        parity: its distance from the checkpoint, with the tolerance that the device is held to.
        golden: the golden images with that tolerance, the artifact's own logits and their tolerance.
        checked_with: the backend that ran it.
    """

    parity: Parity
    golden: Golden
    checked_with: str


def checking_runtime(bundle: Bundle, target: Target, *, threads: int = 1) -> BaseRuntime:
    """The runtime, not yet open, that executes an artifact as its device does.

    Another one where the device's own does not run here; and ONNX Runtime without its fused 8-bit kernels where those
    of x86 CPUs may saturate on weights that use all of their 8 bits.
    """
    row = format_named(target.checked_with or bundle.manifest.artifact.format)
    kind = row.exact_runtime(target.full_range(bundle.manifest.artifact.precision))
    return kind(bundle.artifact_path, bundle.manifest, threads=threads)


def checked_parity(bundle: Bundle, request: Checked) -> CheckedArtifact:
    """Compare the artifact with the checkpoint on the golden images.

    Raises:
        ExportError: it computes something else, or 8 bits are too few for the network.
    """
    golden, target, precision = request.golden, request.target, bundle.manifest.artifact.precision
    stored = target.in_file(precision)
    with checking_runtime(bundle, target) as model:
        logits = golden_logits(model, golden)
        alone = {count: model.infer_all(golden.clean[:count]) for count in FEW}
        tolerance = logit_tolerance(request.model, golden.clean, precision, target)
        own = artifact_tolerance(bundle, target, request.model, model, golden.attacked, tolerance)
        checked_with = f"{model.info.backend} {model.info.version} on {model.info.device}"
    parity = parity_between(logits, golden)
    allowed = logit_tolerance(request.model, golden.clean, stored, target, on_device=False)
    least = MIN_AGREEMENT[stored]
    if stored == "int8":
        _refuse_8_bits(logits, golden, least, tolerance)
    elif not parity.max_logit_error <= allowed or not parity.argmax_agreement >= least:
        raise ExportError(
            f"the written artifact differs from the checkpoint: logits by {parity.max_logit_error:.2g} (relative, at "
            f"most {allowed:.2g}), classes agree on {100 * parity.argmax_agreement:.2f}% (at least "
            f"{100 * least:g}%); nothing was written{ill_conditioned(request.model, golden.clean)}"
        )
    _refuse_dependence(alone, logits, MAX_TOLERANCE[stored])
    clean, attacked = np.split(logits.astype(np.float32), 2)
    golden = dataclasses.replace(
        golden,
        tolerance=tolerance,
        artifact_clean_logits=clean,
        artifact_attacked_logits=attacked,
        artifact_tolerance=own,
    )
    return CheckedArtifact(Parity(parity.max_logit_error, tolerance, parity.argmax_agreement), golden, checked_with)


def _refuse_dependence(alone: Mapping[int, np.ndarray], logits: np.ndarray, allowed: float) -> None:
    """Raise ExportError if the logits of a few images are others than those of the same images in a large batch."""
    for count, found in alone.items():
        expected = logits[: len(found)]
        error = relative_error(found, expected) if found.shape == expected.shape else np.inf
        if not error <= allowed:
            raise ExportError(
                f"the written artifact gives other logits for {count} image(s) in a call than for many: shape "
                f"{found.shape}, off by {error:.2g} (relative, at most {allowed:.2g}); nothing was written"
            )


def _refuse_8_bits(logits: np.ndarray, golden: Golden, least: float, tolerance: float) -> None:
    """Raise TooFewBits for the reasons below, and SameLogits where the checkpoint itself is the cause."""
    try:
        refuse_broken(logits, golden, least)
        refuse_flagged(logits, golden, tolerance)
    except TooFewBits as cause:
        expected = np.concatenate([golden.clean_logits, golden.attacked_logits]).astype(np.float64)
        if np.ptp(expected, axis=0).max() <= SAME * np.abs(expected).max():
            raise SameLogits from cause
        raise


def refuse_broken(logits: np.ndarray, golden: Golden, least: float) -> None:
    """Raise TooFewBits unless the logits of an 8-bit artifact are finite and keep the classes of clear images.

    Args:
        logits: (2N, K) of the artifact on the clean images, then on the attacked ones.
        golden: those images with the checkpoint's logits.
        least: smallest fraction of equal classes on the half of the images of which the checkpoint is surest.
    """
    expected = np.concatenate([golden.clean_logits, golden.attacked_logits])
    sure = surest(expected)
    share = agreement(logits[sure], expected[sure])
    if not share >= least or not np.isfinite(logits).all():
        raise TooFewBits(
            f"on the half of the images of which the checkpoint is surest, classes agree on {100 * share:.1f}% (at "
            f"least {100 * least:g}%)"
        )


def refuse_flagged(logits: np.ndarray, golden: Golden, tolerance: float) -> None:
    """Raise TooFewBits if `verify` would not take an 8-bit artifact for the checkpoint.

    Args:
        logits, golden: as for `refuse_broken`.
        tolerance: largest relative error of most images.
    """
    expected = np.concatenate([golden.clean_logits, golden.attacked_logits])
    checks = [
        scaled_logits(logits[: len(golden.labels)], golden.clean_logits, tolerance),
        not_the_checkpoint("golden images", logits, expected, tolerance, OUTLIERS["int8"]),
    ]
    for flag in raised(checks):
        raise TooFewBits(flag.detail)
