"""Figures computed from logits, against values worked out by hand; batch filling against a direct call."""

from __future__ import annotations

import numpy as np
import pytest

from robust_edge_runtimes.core.batches import filled, in_batches
from robust_edge_runtimes.core.logits import is_right
from robust_edge_runtimes.scoring import agreement, margins, relative_error, score_of, share_above


def test_a_row_with_nan_or_infinity_is_never_right():
    logits = np.array([[1, 0], [np.nan, 0], [np.inf, 0], [1, -np.inf], [0, 1]], np.float32)
    assert is_right(logits, np.zeros(5, np.int64)).tolist() == [True, False, False, False, False]


def test_a_margin_by_hand():
    logits = np.array([[3, 1, 2], [3, 1, 2], [np.nan, 0, 0], [np.inf, 0, 0]], np.float32)
    assert margins(logits, np.array([0, 1, 0, 0])).tolist() == [1, -2, -np.inf, -np.inf]


@pytest.mark.parametrize(
    ("logits", "expected", "error"),
    [
        ([[1, 2]], [[1, 2]], 0),
        ([[2, -2]], [[2, -4]], 2 / 3),
        ([[4, -8]], [[4, -4]], 1.0),
        ([[1e-12, 0]], [[0, 0]], 1.0),
    ],
)
def test_error_is_relative_to_the_scale_of_the_expected_logits(logits, expected, error):
    assert relative_error(np.array(logits, np.float32), np.array(expected, np.float32)) == pytest.approx(error)


def test_nan_passes_no_comparison():
    assert not relative_error(np.array([[np.nan, 0]], np.float32), np.ones((1, 2), np.float32)) <= 1e9
    assert not relative_error(np.array([[np.inf, 0]], np.float32), np.ones((1, 2), np.float32)) <= 1e9


def test_agreement_is_the_share_of_equal_classes():
    assert agreement(np.eye(4), np.eye(4)[[0, 1, 2, 2]]) == 0.75


def test_classes_whose_logits_are_tied_up_to_rounding_agree():
    """NaN and infinity tie with nothing, nor do they change what a tie of other images is."""
    expected = np.array([[10, 9.999999], [10, 9.9], [0, 0], [np.nan, 0], [np.inf, 0]], np.float32)
    assert agreement(expected[:, ::-1], expected) == pytest.approx(2 / 5)


@pytest.mark.parametrize(("tolerance", "share"), [(0.04, 1.0), (0.1, 0.5), (0.5, 0.25)])
def test_share_above_is_relative_to_the_largest_expected_logit_and_nan_is_above(tolerance, share):
    expected = np.array([[10, -10], [0, 1], [0, 1], [0, 1]], np.float32)
    logits = expected + np.array([[0.5, 0], [0, 2], [0, np.nan], [0, 0.5]], np.float32)
    assert share_above(tolerance, logits, expected) == share


@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_batches_return_what_one_call_returns(size, fill):
    images, seen = np.arange(7, dtype=np.float32).reshape(7, 1, 1, 1), []

    def function(part):
        seen.append(len(part))
        return part.reshape(-1, 1) * 2

    assert in_batches(function, images, size, fill=fill).ravel().tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert sum(seen) == (-(-7 // size) * size if fill else 7)
    assert set(seen) == {size} if fill else max(seen) <= size


def test_filled_repeats_the_last_image():
    assert filled(np.array([1, 2, 3]), 2).tolist() == [1, 2, 3, 3]
    assert filled(np.array([1, 2]), 2).tolist() == [1, 2]


@pytest.mark.parametrize("batch", [None, 7, 200])
def test_an_artifact_scores_any_number_of_images(Fake, make_manifest, linear, golden, batch):
    images = np.concatenate([golden.clean] * 3)
    with Fake(make_manifest(linear, golden, batch=batch), linear.logits) as model:
        assert np.array_equal(score_of(model)(images), linear.logits(images))
        sizes = {len(event) for event in model.events if isinstance(event, np.ndarray)}
    assert sizes == ({128, 52} if batch is None else {batch})
