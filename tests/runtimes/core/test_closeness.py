"""What errors of logits are relative to, and how many images may exceed a tolerance."""

from __future__ import annotations

import numpy as np
import pytest

from robust_edge_runtimes.core.closeness import logit_scale, most_above, number_above, relative_errors

LOGITS = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float64)


@pytest.mark.parametrize("offset", [100, 1e6, -1e6])
def test_a_constant_added_to_all_logits_of_an_image_widens_no_tolerance(offset):
    noise = 1e-3 * np.random.default_rng(1).normal(size=LOGITS.shape)
    shifted = LOGITS + offset
    assert logit_scale(shifted) == pytest.approx(np.abs(LOGITS - LOGITS.mean(axis=1, keepdims=True)).max())
    assert relative_errors(shifted + noise, shifted).max() >= relative_errors(LOGITS + noise, LOGITS).max() * 0.99
    each = LOGITS + offset * np.arange(50)[:, None]  # another constant for each image
    assert logit_scale(each) == pytest.approx(logit_scale(shifted))


def test_the_scale_is_never_larger_than_the_largest_logit():
    logits = np.array([[10, -10, -10, -10, -10]], np.float32)  # 16 from their mean
    assert logit_scale(logits) == 10


def test_one_logit_is_its_own_scale():
    assert logit_scale(np.array([[2.0], [-3.0]])) == 3


def test_images_with_nan_or_infinity_do_not_set_the_scale_and_exceed_every_tolerance():
    expected = np.array([[1, -1], [np.inf, 0], [np.nan, 0]], np.float32)
    assert logit_scale(expected) == 1
    assert number_above(relative_errors(expected, expected), 1e9) == 2
    assert logit_scale(expected[1:]) == 1e-12


@pytest.mark.parametrize(
    ("images", "precision", "most"), [(100, "int8", 10), (60, "int8", 6), (9, "int8", 0), (100, "fp16", 0)]
)
def test_a_tenth_of_the_images_may_exceed_a_tolerance_in_8_bits_only(images, precision, most):
    assert most_above(images, precision) == most
