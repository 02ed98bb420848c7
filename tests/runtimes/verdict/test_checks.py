"""Checks of logits on cases whose outcome is known; `evaluate` and `verify` share them."""

from __future__ import annotations

import numpy as np
import pytest

from robust_edge_runtimes.verdict.checks import (
    batch_dependent,
    black_box_beats_white_box,
    non_finite,
    not_the_artifact,
    not_the_checkpoint,
    output_checks,
    randomised,
    repeat_checks,
    rounded_logits,
    scaled_logits,
    softmax_output,
)
from robust_edge_runtimes.verdict.flags import raised


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(0, 3, (64, 10)).astype(np.float32)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_honest_logits_raise_nothing(logits, precision):
    kept = {"fp32": logits, "fp16": logits.astype(np.float16).astype(np.float32), "int8": np.round(logits * 10) / 10}
    score = {image.tobytes(): row for image, row in zip(logits, kept[precision], strict=True)}
    checks = output_checks(lambda x: np.stack([score[row.tobytes()] for row in x]), logits, logits, 1e-2, precision)
    assert raised(checks) == []
    assert len(checks) == 6


@pytest.mark.parametrize(("precision", "moved", "found"), [("fp32", 1, True), ("int8", 6, False), ("int8", 7, True)])
def test_logits_of_another_machine_may_differ_on_a_tenth_of_the_images_in_8_bits(logits, precision, moved, found):
    here = logits.copy()
    here[:moved, 2] += 0.02 * np.abs(logits).max()
    assert not_the_artifact(here, logits, 0.01, precision).raised is found
    assert not not_the_artifact(here, logits, 0.03, precision).raised
    assert not_the_artifact(np.full_like(logits, np.nan), logits, 1.0, precision).raised


def test_probabilities_are_found_in_fp16_too_and_not_where_the_checkpoint_has_them(logits):
    exponential = np.exp(logits)
    probabilities = exponential / exponential.sum(1, keepdims=True)
    rounded = probabilities.astype(np.float16).astype(np.float32)
    assert softmax_output(probabilities).raised
    assert softmax_output(rounded).raised
    assert not softmax_output(rounded, probabilities).raised
    assert not softmax_output(logits).raised
    assert not softmax_output(probabilities + 0.01).raised


@pytest.mark.parametrize(
    ("change", "precision", "found"),
    [
        (lambda z: np.round(z), "fp32", True),
        (lambda z: np.round(z * 10) / 10, "fp32", True),
        (lambda z: np.round(z * 10) / 10, "int8", False),
        (lambda z: np.round(z * 4) / 4, "int8", True),
        (lambda z: np.round(z * 1000) / 1000, "fp32", False),
        (lambda z: z.astype(np.float16).astype(np.float32), "fp16", False),
        (lambda z: np.sign(z) * 2.0 ** np.round(np.log2(np.abs(z))), "fp32", True),
        (lambda z: np.zeros_like(z), "fp32", True),
    ],
    ids=["whole", "tenths", "tenths in 8 bits", "quarters in 8 bits", "thousandths", "fp16", "powers of 2", "constant"],
)
def test_coarse_logits(logits, change, precision, found):
    coarse = change(logits).astype(np.float32)
    check = rounded_logits(coarse, precision=precision)
    assert check.raised is found, check.detail
    assert not rounded_logits(coarse, coarse, precision).raised


def test_eight_images_are_enough_to_see_a_grid(logits):
    assert rounded_logits(np.round(logits[:8])).raised
    assert not rounded_logits(logits[:8]).raised
    assert rounded_logits(np.full((2, 3), np.nan, np.float32)).raised is None


@pytest.mark.parametrize(("factor", "found"), [(1.0, False), (1.0005, False), (1.01, True), (1e4, True), (-1.0, True)])
def test_a_multiple_of_the_checkpoint(logits, factor, found):
    assert scaled_logits(logits * np.float32(factor), logits, 1e-3).raised is found
    assert not scaled_logits(logits[::-1], logits, 1e-3).raised


@pytest.mark.parametrize(("change", "found"), [(0.0, False), (1e-5, False), (1e-2, True), (np.nan, True)])
def test_another_answer_the_second_or_the_third_time(logits, change, found):
    other = logits + np.float32(change) * np.abs(logits).max()
    assert randomised(logits, other).raised is found
    assert randomised(logits, logits, other).raised is found


@pytest.mark.parametrize(
    ("images", "precision", "found"), [(0, "fp32", False), (1, "fp32", True), (3, "int8", False), (4, "int8", True)]
)
def test_images_that_differ_alone(logits, images, precision, found):
    alone = logits[:32].copy()
    alone[:images] += np.float32(0.1 * np.abs(logits[:32]).max())
    assert batch_dependent(alone, logits[:32], precision).raised is found


@pytest.mark.parametrize(("change", "found"), [(2.0**-24, False), (1e-6, True)])
def test_no_image_differs_where_integers_are_computed(logits, change, found):
    """One image in 64, by more than one rounding of float32."""
    other = logits.astype(np.float64)
    other[5, 2] += change * np.abs(logits).max()
    assert batch_dependent(other, logits, "int8", exact=True).raised is found
    assert not batch_dependent(other, logits, "int8").raised
    assert not_the_artifact(other, logits, change / 2, "int8", exact=True).raised
    assert not not_the_artifact(other, logits, change / 2, "int8").raised


def test_nan_and_infinity(logits):
    for value in (np.nan, np.inf, -np.inf):
        wild = logits.copy()
        wild[3, 3] = value
        assert non_finite(wild).raised
    assert not non_finite(logits).raised


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_a_rounding_neighbour_in_another_batch_is_no_flag(linear, golden, share):
    """Kernels for one image add up in another order, and 8 bits may then round the other way on a few images."""
    neighbours = {image.tobytes() for image in golden.clean[: int(20 * share)]}

    def score(images):
        logits = linear.logits(images)
        if len(images) == 1 and images[0].tobytes() in neighbours:
            logits = logits + np.float32(0.1 * np.abs(golden.clean_logits).max())
        return logits

    images = golden.clean[:20]
    names = [flag.name for flag in raised(repeat_checks(score, images, score(images), "int8"))]
    assert names == (["batch_dependent"] if share > 0.1 else [])


@pytest.mark.parametrize(("outliers", "found"), [(0.0, True), (0.1, True), (0.25, False)])
def test_only_a_share_of_the_images_may_differ(logits, outliers, found):
    other = logits.copy()
    other[::5] += 1
    check = not_the_checkpoint("test images", other, logits, 1e-3, outliers)
    assert check.raised is found
    assert "on the test images logits differ" in check.detail


def test_exact_gradients_leave_less_to_chance_than_those_of_a_twin():
    assert [black_box_beats_white_box(n, 1000, exact=True).raised for n in (0, 2, 3)] == [False, False, True]
    assert [black_box_beats_white_box(n, 1000, exact=False).raised for n in (3, 15, 25)] == [False, False, True]
