"""Square against linear networks, where the worst point of every ball is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from robust_edge_runtimes.attacks.square import Square
from robust_edge_runtimes.attacks.threat import L2, Threat
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.logits import is_right
from robust_edge_runtimes.scoring import margins

EPS = 0.08
THREAT = Threat(EPS)


def worst_margins(linear, images, labels, eps):
    """(N,) the least lead of the true class anywhere in the ball: every pixel moves by its own weights' sign."""
    pixels = images.reshape(len(images), -1).astype(np.float64)
    low, high = np.clip(pixels - eps, 0, 1), np.clip(pixels + eps, 0, 1)
    worst = np.full(len(images), np.inf)
    for k in range(len(linear.bias)):
        weight = linear.weight[labels].astype(np.float64) - linear.weight[k]
        lead = np.where(weight > 0, weight * low, weight * high).sum(1) + linear.bias[labels] - linear.bias[k]
        worst = np.where(labels == k, worst, np.minimum(worst, lead))
    return worst


@pytest.fixture
def attacked(linear, golden):
    return Square(400).perturb(linear.logits, golden.clean, golden.labels, THREAT, np.random.default_rng(0))


def test_it_finds_what_can_be_found_and_nothing_else(linear, golden, attacked):
    worst = worst_margins(linear, golden.clean, golden.labels, EPS)
    right = is_right(linear.logits(attacked), golden.labels)
    assert right[worst > 1e-5].all()
    breakable = worst < 0
    assert 10 < breakable.sum() < len(breakable)
    assert right[breakable].mean() < 0.2  # it climbs towards one wrong class, and may climb to the lesser


def test_candidates_lie_in_the_ball_and_among_pixels(linear, golden):
    images = golden.clean.copy()
    images[:5], images[5:10] = 0, 1
    found = Square(30).perturb(linear.logits, images, golden.labels, THREAT, np.random.default_rng(1))
    assert found.dtype == np.float32
    assert np.abs(found - images).max() <= EPS + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1


def test_more_queries_never_help_the_network(linear, golden):
    def lead(queries):
        random = np.random.default_rng(2)
        found = Square(queries).perturb(linear.logits, golden.clean, golden.labels, THREAT, random)
        return margins(linear.logits(found), golden.labels)

    first = lead(1)
    assert (lead(50) <= first).all()
    assert (lead(50) < first).sum() > 20


def test_it_asks_no_more_than_it_may_and_leaves_broken_images_alone(linear, golden):
    asked = np.zeros(len(golden.labels), int)
    whole = golden.clean.reshape(len(golden.clean), -1)

    def score(points):
        rows = [int(np.abs(whole - point.ravel()).max(1).argmin()) for point in points]
        asked[rows] += 1
        logits = linear.logits(points)
        logits[np.array(rows) < 20] = np.nan  # already wrong
        return logits

    Square(25).perturb(score, golden.clean, golden.labels, Threat(0.001), np.random.default_rng(3))
    assert (asked[:20] == 1).all()
    assert (asked[20:] <= 25).all()
    assert asked.max() == 25


def test_the_seed_decides_and_progress_counts(linear, golden):
    def run(seed, **options):
        random = np.random.default_rng(seed)
        return Square(20).perturb(linear.logits, golden.clean, golden.labels, THREAT, random, **options)

    seen = []
    assert np.array_equal(run(4), run(4, progress=lambda done, total: seen.append((done, total))))
    assert not np.array_equal(run(4), run(5))
    assert seen == [(query, 20) for query in range(1, 21)]


def test_another_norm_is_refused(linear, golden):
    with pytest.raises(InputError, match="linf only"):
        Square(2).perturb(linear.logits, golden.clean, golden.labels, Threat(EPS, L2), np.random.default_rng(0))
