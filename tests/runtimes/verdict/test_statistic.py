"""The interval of paired differences, against values worked out by hand and by simulation."""

from __future__ import annotations

import numpy as np
import pytest

from robust_edge_runtimes.verdict.statistic import Drop, drop_of_counts, paired_drop


def outcomes(both, lost, gained, neither):
    reference = np.array([True] * (both + lost) + [False] * (gained + neither))
    artifact = np.array([True] * both + [False] * lost + [True] * gained + [False] * neither)
    return reference, artifact


@pytest.mark.parametrize(
    ("cells", "points", "low", "high"),
    [
        # by hand: centre (10.5 - 2.5) / 102 = 7.8431 %, half 1.959964 * sqrt(13 - 64 / 102) / 102 = 6.7589 %
        ((80, 10, 2, 8), 8.0, 1.0842, 14.6020),
        # by hand: centre 0, half 1.959964 * sqrt(1) / 62 = 3.1612 %
        ((60, 0, 0, 0), 0.0, -3.1612, 3.1612),
        # by hand: centre (0.5 - 20.5) / 52 = -38.4615 %, half 1.959964 * sqrt(21 - 400 / 52) / 52 = 13.7508 %
        ((10, 0, 20, 20), -40.0, -52.2123, -24.7108),
    ],
)
def test_the_interval_is_agresti_and_mins(cells, points, low, high):
    drop = paired_drop(*outcomes(*cells), budget=1.0)
    assert drop.points == pytest.approx(points)
    assert drop.low == pytest.approx(low, abs=1e-3)
    assert drop.high == pytest.approx(high, abs=1e-3)


def test_order_of_the_images_does_not_matter_and_sides_mirror():
    reference, artifact = outcomes(30, 6, 2, 12)
    shuffled = np.random.default_rng(0).permutation(50)
    forward = paired_drop(reference, artifact, 1.0)
    assert paired_drop(reference[shuffled], artifact[shuffled], 1.0) == forward
    backward = paired_drop(artifact, reference, 1.0)
    assert (backward.points, backward.low, backward.high) == pytest.approx(
        (-forward.points, -forward.high, -forward.low)
    )


@pytest.mark.parametrize(
    ("n", "lost", "gained"), [(60, 0.05, 0.01), (200, 0.03, 0.03), (500, 0.01, 0.0), (100, 0.2, 0.1)]
)
def test_the_interval_covers_the_truth_as_often_as_it_says(n, lost, gained):
    random = np.random.default_rng(0)
    covered, trials = 0, 3000
    for _ in range(trials):
        draw = random.uniform(size=n)
        reference = draw >= gained
        artifact = (draw < gained) | (draw >= gained + lost)
        drop = paired_drop(reference, artifact, 1.0)
        covered += drop.low <= 100 * (lost - gained) <= drop.high
    # 95 % is nominal; 0.94 leaves room for the discreteness of small counts and 0.4 % of sampling error
    assert covered / trials >= 0.94


def test_a_faithful_artifact_rarely_fails_by_chance():
    """Budget 1 point, true loss 1 point: the gate may reject at most one in forty."""
    random, rejected = np.random.default_rng(1), 0
    for _ in range(2000):
        draw = random.uniform(size=300)
        rejected += paired_drop(draw >= 0.02, (draw < 0.02) | (draw >= 0.05), 1.0).exceeded
    assert rejected / 2000 <= 0.03


@pytest.mark.parametrize(
    ("drop", "exceeded", "undecided"),
    [
        (Drop(3.0, 1.1, 5.0, 1.0), True, False),
        (Drop(3.0, 1.0, 5.0, 1.0), False, True),
        (Drop(0.0, -1.0, 1.01, 1.0), False, True),
        (Drop(0.0, -1.0, 1.0, 1.0), False, False),
        (Drop(-3.0, -5.0, -1.0, 1.0), False, False),
    ],
)
def test_where_the_gate_stands(drop, exceeded, undecided):
    assert (drop.exceeded, drop.undecided) == (exceeded, undecided)


def test_counts_are_all_that_matters():
    assert drop_of_counts(10, 2, 100, 1.0) == paired_drop(*outcomes(80, 10, 2, 8), budget=1.0)
