"""The checks of logits and attacks that raise validity flags.

They use a network only as a function from images to logits, so that they apply to artifacts in `verify` and to networks
in torch in `evaluate`.
"""

from __future__ import annotations

import dataclasses
from typing import List, Optional, Sequence, Tuple

import numpy as np

from robust_edge_runtimes.core.closeness import OUTLIERS, logit_scale
from robust_edge_runtimes.scoring import Score, agreement, relative_error, share_above
from robust_edge_runtimes.verdict.flags import Check
from robust_edge_runtimes.verdict.statistic import MIN_IMAGES, Drop, drop_of_counts

REPEAT_TOLERANCE = 1e-4
SINGLE_IMAGES = 32  # the first images are also scored one by one
FLOAT32_ROUNDING = 2.0**-23  # relative; what integers that are scaled at the end may differ by
ALONE_TOLERANCE = 2e-2  # kernels for other batch sizes add in another order: TF32 and fp16 differ by up to 1e-2
PROBABILITY_TOLERANCE = 1e-4  # fp16 has a spacing of 5e-4 just below 1, and sums add up K roundings
LEVELS = 200  # fewer steps between zero and the largest logit are coarser than any number format that we write
INT8_LEVELS = 100  # an artifact whose last layer has 8 bits has 127
ON_GRID = 1e-2  # of a step
DISTINCT = 0.5  # of the logits
ZERO_GRADIENT_SHARE = 0.05  # share of the gradients
EXACT_GAIN = 0.002  # of the images
APPROXIMATE_GAIN = 1.0  # percentage points
FLOOR = 0.05  # of the images
ENOUGH = 5
"""Images that show something about a class: of a checkpoint that is right on half of them, 3% give none right."""
NOTHING_TO_LOSE = "nothing_to_lose"  # leaves a verdict undecided where other flags fail it
BETTER_NETWORK = "a network that is right more often"
SMALLER_RADIUS = f"a smaller radius (eps), or {BETTER_NETWORK},"
STORED_TOLERANCE = 1e-3  # the same network in torch, on another machine


def output_checks(
    score: Score,
    images: np.ndarray,
    expected: np.ndarray,
    tolerance: float,
    precision: str,
    *,
    exact: bool = False,
    singles: int = SINGLE_IMAGES,
) -> List[Check]:
    """Check the artifact's logits for signs of hidden gradients.

    Args:
        score: the artifact.
        images: (N, C, H, W) float32 in [0, 1].
        expected: (N, K), the checkpoint's logits; a property that they share raises no flag.
        tolerance: relative error that is taken for rounding.
        precision: of the artifact, as in its manifest.
        exact: as for `batch_dependent`.
        singles: as for `repeat_checks`.
    """
    logits = score(images)
    checks = [non_finite(logits), *repeat_checks(score, images, logits, precision, exact=exact, singles=singles)]
    finite = np.isfinite(logits).all(axis=1)
    if not finite.any():
        return checks
    return [
        *checks,
        softmax_output(logits[finite], expected[finite]),
        rounded_logits(logits[finite], expected[finite], precision),
        scaled_logits(logits[finite], expected[finite], tolerance),
    ]


def repeat_checks(
    score: Score,
    images: np.ndarray,
    first: np.ndarray,
    precision: str,
    *,
    exact: bool = False,
    singles: int = SINGLE_IMAGES,
) -> List[Check]:
    """Whether logits depend on more than the image: on random numbers, or on the rest of the batch.

    Args:
        score: the artifact.
        images: (N, C, H, W) float32 in [0, 1]; all are scored again, and the first ones one by one, as an application
            does.
        first: (N, K), their logits the first time.
        precision: of the artifact.
        exact: as for `batch_dependent`.
        singles: how many images are scored one by one.
    """
    again = score(images)
    alone = np.concatenate([score(image[None]) for image in images[:singles]])
    return [randomised(first, again), batch_dependent(alone, first[:singles], precision, exact=exact)]


def non_finite(logits: np.ndarray) -> Check:
    """Logits that are NaN or infinite."""
    finite = bool(np.isfinite(logits).all())
    return Check("non_finite", not finite, "all logits are finite" if finite else "logits that are NaN or infinite")


def randomised(first: np.ndarray, *again: np.ndarray) -> Check:
    """Whether the logits of the same images differ between passes by more than 1e-4.

    Images whose logits are finite in no pass are left out: for them `non_finite` is raised.

    The difference is relative to the largest logit, as all tolerances here are. (AutoAttack normalises each image's
    logits first, which does not see a random scale and is unstable where an image's logits are all near zero.)

    Args:
        first: (N, K), of the first pass.
        again: the same of at least one other pass.
    """
    passes = np.stack([first, *again])
    answered = np.isfinite(passes).all(axis=2).any(axis=0)
    if not answered.any():
        return Check("randomised", None, "not checked: no image has finite logits")
    error = relative_error(passes[1:, answered], passes[:1, answered])
    detail = f"{len(again) + 1} passes over the same images give logits that differ by {error:.2g} (relative)"
    return Check("randomised", not error <= REPEAT_TOLERANCE, detail)


def batch_dependent(
    alone: np.ndarray, together: np.ndarray, precision: str = "fp32", *, how: str = "alone", exact: bool = False
) -> Check:
    """Whether an image's logits alone and in a batch differ by more than 2% of the largest logit.

    No image may differ by that much, except one in ten in 8 bits, where kernels for another batch size may round a
    value to a neighbour. Integers do not depend on the batch: there no image may differ by more than one rounding of
    float32. Images whose logits are finite neither alone nor in the batch are left out.

    Args:
        alone: (n, K) logits of the images scored one by one.
        together: the same of one batch.
        precision: of the network.
        how: they were scored, if not alone: in batches of another size, or with another number of threads.
        exact: whether the network computes integers, as `BaseRuntime.exact` says.
    """
    answered = np.isfinite(alone).all(axis=1) | np.isfinite(together).all(axis=1)
    if not answered.any():
        return Check("batch_dependent", None, "not checked: no image has finite logits")
    share = share_above(FLOAT32_ROUNDING if exact else ALONE_TOLERANCE, alone[answered], together[answered])
    detail = f"{100 * share:.2g}% of the images have other logits {how} than in a batch"
    return Check("batch_dependent", share > _outliers(precision, exact), detail)


def softmax_output(logits: np.ndarray, expected: Optional[np.ndarray] = None) -> Check:
    """Whether outputs are probabilities: in [0, 1] within 1e-4, and each row's sum 1 within K·1e-4, which fp16 keeps.

    Args:
        logits: (N, K).
        expected: the checkpoint's outputs; if these are probabilities, too, no flag is raised.
    """
    found = _are_probabilities(logits) and not (expected is not None and _are_probabilities(expected))
    detail = "the outputs are probabilities, which hide gradients; export the logits"
    return Check("softmax_output", found, detail if found else "the outputs are not probabilities")


def rounded_logits(logits: np.ndarray, expected: Optional[np.ndarray] = None, precision: str = "fp32") -> Check:
    """Whether logits are coarser than their number format: equally spaced, or with few different values.

    The spacing is computed from the values, independently of the number of images. The number of different values
    also detects unequal spacings; it is not used in 8 bits, where few values are normal.

    Args:
        logits: (N, K).
        expected: the checkpoint's logits; if these are as coarse, no flag is raised.
        precision: of the network.
    """
    if not np.isfinite(logits).all():
        return Check("rounded_logits", None, "not asked: there are logits that are not finite")
    coarse = _coarseness(logits, precision)
    found = bool(coarse) and not (expected is not None and _coarseness(expected, precision))
    return Check("rounded_logits", found, coarse if found else "the logits are as fine as floating point")


def scaled_logits(logits: np.ndarray, expected: np.ndarray, tolerance: float) -> Check:
    """Whether logits are a multiple of the checkpoint's, which saturates or flattens gradients.

    Args:
        logits: (N, K), finite.
        expected: the checkpoint's.
        tolerance: relative error that is taken for rounding.
    """
    wide = expected.astype(np.float64)
    factor = float((wide * logits).sum() / max(float((wide * wide).sum()), 1e-30))
    scaled = relative_error(logits, factor * expected) <= tolerance
    detail = f"the logits are {factor:.4g} times the checkpoint's, which saturates or flattens gradients"
    return Check("scaled_logits", scaled and not abs(factor - 1) <= tolerance, detail)


def not_the_checkpoint(
    images: str, logits: np.ndarray, expected: np.ndarray, tolerance: float, outliers: float = 0.0
) -> Check:
    """Whether logits differ from the checkpoint's.

    Args:
        images: which ones they are, for the detail.
        logits: (N, K), the artifact's.
        expected: (N, K), the checkpoint's.
        tolerance: largest relative error of a faithful artifact.
        outliers: share of the images that may be further off than that.
    """
    detail = (
        f"on the {images} logits differ from the checkpoint's by {relative_error(logits, expected):.2g} (relative), "
        f"tolerance {tolerance:.2g}; classes agree on {100 * agreement(logits, expected):.1f}%"
    )
    return Check("not_the_checkpoint", not share_above(tolerance, logits, expected) <= outliers, detail)


def not_the_artifact(
    logits: np.ndarray, stored: np.ndarray, tolerance: float, precision: str, *, exact: bool = False
) -> Check:
    """Whether the artifact gives other logits than those that the bundle stores of it.

    Args:
        logits: (N, K), of the artifact on this machine.
        stored: (N, K), of the artifact on the exporting machine, from the bundle.
        tolerance: relative difference that another machine's rounding explains.
        precision: of the artifact; in 8 bits some images may differ by more (`OUTLIERS`).
        exact: as for `batch_dependent`; no image may then.
    """
    share = share_above(tolerance, logits, stored)
    detail = (
        f"on {100 * share:.2g}% of the stored images the artifact gives other logits here than the bundle says that it "
        f"gave at export, by up to {relative_error(logits, stored):.2g} (relative), tolerance {tolerance:.2g}"
    )
    return Check("not_the_artifact", share > _outliers(precision, exact), detail)


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """Where the checkpoint was right.

    Attributes:
        right: (N,) bool.
        where: on which images.
        remedy: what would show a difference if the checkpoint is right on too few of them.
    """

    right: np.ndarray
    where: str = "under attack"
    remedy: str = SMALLER_RADIUS


def nothing_to_lose(robust: Sequence[Answers], classes: int, by_class: Sequence[Tuple[int, int]] = ()) -> Check:
    """Whether the checkpoint's robust accuracy is at chance level, so that no artifact can be worse.

    Where classes have different numbers of images, one answer for all images may be right on most of them. The mean
    over the classes shows that it is a guess.

    Args:
        robust: of each mode, and of all together; those with fewer than MIN_IMAGES images are ignored.
        classes: number of classes; the accuracy of guessing is 1/classes.
        by_class: for each class that has images, the number on which the checkpoint was right in all modes, and of all.
    """
    enough = [item for item in robust if len(item.right) >= MIN_IMAGES]
    floor = chance_level(classes)
    found = [("", float(item.right.mean()), floor, item) for item in enough]
    shares = _shares(by_class)
    if enough and len(shares) > 1:
        found.append((", as a mean over the classes,", sum(shares) / len(shares), 1 / len(shares), enough[-1]))
    if not found:
        return Check(NOTHING_TO_LOSE, False, "")
    what, share, chance, item = min(found, key=lambda row: row[1] - row[2])
    detail = (
        f"the checkpoint itself is right on {100 * share:.1f}%{what} {item.where}, no more than by chance "
        f"({100 * chance:.1f}%): {item.remedy} would show a difference"
    )
    return Check(NOTHING_TO_LOSE, share <= chance + 1e-9, detail)


def chance_level(classes: int) -> float:
    """The accuracy up to which a checkpoint has nothing to lose: that of guessing, and at least FLOOR."""
    return max(FLOOR, 1 / classes if classes > 1 else 0.0)


def _shares(by_class: Sequence[Tuple[int, int]]) -> List[float]:
    """The share of right answers in each class; classes of few images have the share of all such classes together.

    They are left out where they do not have enough images together either, unless all images of one class are right and
    no others, which a checkpoint that gives one answer explains.
    """
    if all(right in (0, images) for right, images in by_class):
        return [right / images for right, images in by_class]
    few = [(right, images) for right, images in by_class if images < ENOUGH]
    shares = [right / images for right, images in by_class if images >= ENOUGH]
    images = sum(images for _, images in few)
    return shares + ([sum(right for right, _ in few) / images] * len(few) if images >= ENOUGH else [])


def forged_answers(stored: np.ndarray, own: np.ndarray) -> Check:
    """Whether the logits that a bundle stores are those of its checkpoint.

    Args:
        stored: (N, K), from the bundle.
        own: (N, K), computed by the checkpoint here.
    """
    error = relative_error(stored, own)
    detail = f"the logits in golden.npz are not the checkpoint's, by {error:.2g} (relative): replay proves nothing"
    return Check("forged_answers", not error <= STORED_TOLERANCE, detail)


def zero_gradient(share: float, detail: str) -> Check:
    """Whether the gradient was zero at more than 5% of the points, so that robust accuracy may be too high by as much.

    Args:
        share: of the gradients that are zero at every pixel; gradients of the margin, or of the cross-entropy at the
            best temperature that was tried, so that a saturated loss is not counted.
        detail: what was measured.
    """
    return Check("zero_gradient", share > ZERO_GRADIENT_SHARE, detail)


def saturated_gradient(share: float, detail: str) -> Check:
    """Whether the cross-entropy's gradient vanishes where the logits have one, at more than 5% of the points.

    Args:
        share: of the gradients.
        detail: what was measured.
    """
    return Check("saturated_gradient", share > ZERO_GRADIENT_SHARE, detail)


def more_robust_than_parent(drop: Drop, mode: str) -> Check:
    """Whether the artifact gains robustness from its export, by more than the budget and beyond chance."""
    gain = f"{-drop.points:.1f} points more robust than its own checkpoint in mode {mode}"
    return Check("more_robust_than_parent", drop.high < -drop.budget, f"{gain}: gradients are hidden, not harmless")


def black_box_beats_white_box(broken: int, images: int, *, exact: bool) -> Check:
    """Whether an attack that uses only logits breaks images that every attack with gradients left.

    Args:
        broken: images that it broke and they did not.
        images: all of them, at least 1.
        exact: whether the gradients are the network's own; the threshold is then 0.2% of the images, as in AutoAttack.
            Gradients of a surrogate or of a twin that rounds miss some images; the share must then exceed 1% beyond
            the 95% interval.
    """
    found = broken > EXACT_GAIN * images if exact else drop_of_counts(broken, 0, images, APPROXIMATE_GAIN).exceeded
    detail = f"an attack without gradients broke {broken} of {images} images that every attack with gradients had left"
    return Check("black_box_beats_white_box", found, detail)


def _outliers(precision: str, exact: bool) -> float:
    """Share of the images on which two passes of one artifact may differ by more than a tolerance."""
    return 0.0 if exact else OUTLIERS.get(precision, 0.0)


def _are_probabilities(logits: np.ndarray) -> bool:
    inside = bool((logits >= -PROBABILITY_TOLERANCE).all() and (logits <= 1 + PROBABILITY_TOLERANCE).all())
    return inside and bool(np.abs(logits.sum(1) - 1).max() <= PROBABILITY_TOLERANCE * logits.shape[1])


def _coarseness(logits: np.ndarray, precision: str) -> str:
    """Describe why the logits are coarse; empty if they are not."""
    values = np.unique(logits.astype(np.float64))
    eight_bits = precision == "int8"  # which divide the range of all values, whatever they have in common
    largest = float(np.abs(values).max()) if eight_bits else logit_scale(logits)
    step = _grid_step(values, largest)
    if step * (INT8_LEVELS if eight_bits else LEVELS) > largest:
        return f"all logits are multiples of {step:.3g}, the largest is {largest:.3g}: a grid hides gradients"
    if not eight_bits and len(values) <= min(2 * LEVELS, DISTINCT * logits.size):
        return f"the {logits.size} logits take {len(values)} values: flat steps hide gradients"
    return ""


def _grid_step(values: np.ndarray, largest: float) -> float:
    """The spacing of the grid that all values lie on, 0 where there is none.

    Args:
        values: sorted, each once.
        largest: what steps are relative to.
    """
    gaps = np.diff(values)
    gaps = gaps[gaps > 1e-6 * largest]
    if not len(gaps) or largest == 0:
        return 0.0
    step = float(gaps.min())
    multiples = (values - values[0]) / step
    return step if bool(np.abs(multiples - np.round(multiples)).max() <= ON_GRID) else 0.0
