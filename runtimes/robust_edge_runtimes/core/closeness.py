"""How far logits are from others, and how far they may be: for `verify`, for `bench` and for a bundle's run.py."""

import numpy as np

OUTLIERS = {"int8": 0.1}
"""Share of the images on which an artifact of a precision may exceed a tolerance; other precisions: none.

Eight bits round to the neighbouring value, and clip what leaves the calibrated range: at most 3% of the images of good
artifacts in benchmarks/results/rounded_parity.json, nearly all images of another network. Of the 100 images that a
bundle usually stores, more than a tenth then exceed the tolerance once in 5,000 times (binomial).

A file that is wrong on less than a tenth of the images passes these comparisons. Where it predicts other classes there,
the drop shows them, image by image; where it does not, only mode `rebuild` does. Whoever allows outliers names their
number.
"""


def logit_scale(logits: np.ndarray) -> float:
    """What errors of logits are relative to: the largest absolute logit of the images whose logits are finite.

    It is counted from the mean of the image's logits where that is less: a constant that is added to all logits of an
    image changes no class, and must not widen a tolerance.

    Args:
        logits: (..., K).
    """
    wide = logits[np.isfinite(logits).all(axis=-1)].astype(np.float64)
    if not wide.size:
        return 1e-12
    centred = wide - wide.mean(axis=-1, keepdims=True) if wide.shape[-1] > 1 else wide
    return max(min(float(np.abs(wide).max()), float(np.abs(centred).max())), 1e-12)


def relative_errors(logits: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """(...) largest difference of each image, divided by `logit_scale` of the expected logits (..., K)."""
    with np.errstate(all="ignore"):  # infinity and NaN come out as such, and fail every comparison with <=
        errors: np.ndarray = np.abs(logits - expected).max(axis=-1) / logit_scale(expected)
    return errors


def number_above(errors: np.ndarray, tolerance: float) -> int:
    """How many images exceed the tolerance; NaN exceeds every one."""
    return int((~(errors <= tolerance)).sum())


def most_above(images: int, precision: str) -> int:
    """On how many images an artifact of the precision may exceed a tolerance."""
    return int(OUTLIERS.get(precision, 0.0) * images + 1e-9)
