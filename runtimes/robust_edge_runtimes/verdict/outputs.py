"""What an artifact's answers give away about it."""

from __future__ import annotations

from typing import List

import numpy as np

from robust_edge_runtimes.core.bundle import Golden
from robust_edge_runtimes.scoring import Score, relative_error, share_above
from robust_edge_runtimes.verdict.verdict import Flag, Parity

REPEAT_TOLERANCE = 1e-4
ALONE = 32  # images that are asked again, one by one
ALONE_TOLERANCE = 2e-2  # other batch sizes run other kernels, which round to fp16 or TF32 in another order
ALONE_STRAYS = 0.1  # share of the images further off than that: 8 bits may round to the neighbour
PROBABILITY_TOLERANCE = 1e-4
LEVELS = 200  # fewer steps between zero and the largest logit are coarser than any number format that we write
INT8_LEVELS = 100  # 127 in an artifact whose last layer has 8 bits
ON_GRID = 1e-2  # of a step


def output_flags(score: Score, golden: Golden, parity: Parity, precision: str) -> List[Flag]:
    """Signs of an artifact that is not the checkpoint, or that hides where it is weak.

    Args:
        score: the artifact.
        golden: images, and the checkpoint's logits on them.
        parity: of the artifact on these images.
        precision: of the artifact, as in its manifest.
    """
    logits = score(golden.clean)
    flags = repeat_flags(score, golden.clean, logits)
    if not np.isfinite(logits).all():
        flags.append(Flag("non_finite", "the artifact's logits hold NaN or infinity"))
    elif not flags:
        flags += _shape_of(logits, golden.clean_logits, parity.tolerance, precision)
    if not parity.max_logit_error <= parity.tolerance:
        flags.append(
            not_the_checkpoint("golden images", parity.max_logit_error, parity.tolerance, parity.argmax_agreement)
        )
    return flags


def repeat_flags(score: Score, images: np.ndarray, first: np.ndarray) -> List[Flag]:
    """Signs of an artifact whose answer hangs on more than the image: on chance, or on what else is in the batch.

    Args:
        score: the artifact.
        images: (N, C, H, W) float32 in [0, 1]; all are asked again, and the first ALONE by themselves, as an
            application does.
        first: (N, K), what the artifact said to them.
    """
    if not np.isfinite(first).all():
        return []
    if not relative_error(score(images), first) <= REPEAT_TOLERANCE:  # written so that NaN is flagged too
        return [Flag("randomised", "the same images gave other logits the second time")]
    alone = np.concatenate([score(image[None]) for image in images[:ALONE]])
    strays = share_above(ALONE_TOLERANCE, alone, first[:ALONE])
    if not strays > ALONE_STRAYS:
        return []
    return [Flag("batch_dependent", f"{100 * strays:.0f}% of the images gave other logits alone than in a batch")]


def not_the_checkpoint(images: str, error: float, tolerance: float, agreement: float) -> Flag:
    """The flag of logits that are not the checkpoint's."""
    return Flag(
        "not_the_checkpoint",
        f"on the {images} logits differ from the checkpoint's by {error:.2g} (relative), tolerance {tolerance:.2g}; "
        f"classes agree on {100 * agreement:.1f}%",
    )


def _shape_of(logits: np.ndarray, expected: np.ndarray, tolerance: float, precision: str) -> List[Flag]:
    flags = []
    if _are_probabilities(logits) and not _are_probabilities(expected):
        flags.append(Flag("softmax_output", "the outputs are probabilities, which hide gradients; export the logits"))
    step = _grid_step(logits)
    largest = float(np.abs(logits).max())
    levels = INT8_LEVELS if precision == "int8" else LEVELS
    if step * levels > largest and not _grid_step(expected) * levels > float(np.abs(expected).max()):
        detail = f"all logits are multiples of {step:.3g}, the largest is {largest:.3g}: a grid hides gradients"
        flags.append(Flag("rounded_logits", detail))
    wide = expected.astype(np.float64)
    factor = float((wide * logits).sum() / max(float((wide * wide).sum()), 1e-30))
    scaled = relative_error(logits, factor * expected) <= tolerance
    if scaled and not abs(factor - 1) <= tolerance:
        detail = f"the logits are {factor:.4g} times the checkpoint's, which saturates or flattens gradients"
        flags.append(Flag("scaled_logits", detail))
    return flags


def _are_probabilities(logits: np.ndarray) -> bool:
    inside = bool((logits >= -PROBABILITY_TOLERANCE).all() and (logits <= 1 + PROBABILITY_TOLERANCE).all())
    return inside and bool(np.abs(logits.sum(1) - 1).max() <= PROBABILITY_TOLERANCE * logits.shape[1])


def _grid_step(logits: np.ndarray) -> float:
    """The spacing of the grid that all logits lie on, 0 where there is none."""
    values = np.unique(logits.astype(np.float64))
    largest = float(np.abs(values).max()) if len(values) else 0.0
    gaps = np.diff(values)
    gaps = gaps[gaps > 1e-6 * largest]
    if not len(gaps) or largest == 0:
        return 0.0
    step = float(gaps.min())
    multiples = (values - values[0]) / step
    return step if bool(np.abs(multiples - np.round(multiples)).max() <= ON_GRID) else 0.0
