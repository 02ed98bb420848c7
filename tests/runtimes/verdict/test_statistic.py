"""The interval of paired differences, against its definition, published values and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from robust_edge_runtimes.verdict.statistic import (
    ERROR,
    Drop,
    binomial_tail,
    drop_of_counts,
    images_to_decide,
    level_of_look,
    looks,
    paired_drop,
    score_interval,
)


def outcomes(both, lost, gained, neither):
    reference = np.array([True] * (both + lost) + [False] * (gained + neither))
    artifact = np.array([True] * both + [False] * lost + [True] * gained + [False] * neither)
    return reference, artifact


def score_by_definition(lost, gained, images, difference):
    """Tango's statistic with the gained share that maximises the likelihood, found on a fine grid."""
    shares = np.linspace(max(0.0, -difference), (1 - difference) / 2, 400_001)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [
            np.where(count == 0, 0.0, count * np.log(share))
            for count, share in (
                (lost, shares + difference),
                (gained, shares),
                (images - lost - gained, 1 - 2 * shares - difference),
            )
        ]
    share = shares[np.argmax(sum(terms))]
    variance = images * (2 * share + difference - difference**2)
    return (lost - gained - images * difference) / math.sqrt(variance)


@pytest.mark.parametrize(
    ("lost", "gained", "images"), [(12, 2, 50), (1, 7, 21), (0, 0, 357), (3, 0, 400), (40, 20, 160)]
)
def test_the_interval_ends_where_the_score_is_the_normal_quantile(lost, gained, images):
    low, high = score_interval(lost, gained, images, 0.025)
    assert score_by_definition(lost, gained, images, low) == pytest.approx(1.959964, abs=2e-3)
    assert score_by_definition(lost, gained, images, high) == pytest.approx(-1.959964, abs=2e-3)


def test_a_published_interval():
    """Bentur et al. 2009, as worked out in Fagerland, Lydersen, Laake 2017, chapter 8."""
    assert score_interval(1, 7, 21, 0.025) == pytest.approx((-0.517, -0.026), abs=1e-3)


def test_no_difference_seen_is_an_interval_by_hand():
    """Without a discordant pair the statistic is -n d / sqrt(n d (1 - d)), so that d = z² / (n + z²)."""
    z_squared = 1.959964**2
    drop = drop_of_counts(0, 0, 357, 1.0, 0.025)
    assert drop.high == pytest.approx(100 * z_squared / (357 + z_squared), abs=1e-4)
    assert drop.low == pytest.approx(-drop.high)


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
    draws = random.multinomial(n, (lost, gained, 1 - lost - gained), size=10_000)
    found = [drop_of_counts(int(b), int(c), n, 1.0) for b, c, _ in draws]
    covered = np.mean([drop.low <= 100 * (lost - gained) <= drop.high for drop in found])
    # 95 % is nominal; 0.94 leaves room for the discreteness of small counts and 0.2 % of sampling error
    assert covered >= 0.94


@pytest.mark.parametrize("images", [360, 1000, 10_000])
@pytest.mark.parametrize("churn", [0.0, 0.02, 0.05])
def test_a_drop_of_the_budget_passes_at_most_once_in_forty(images, churn):
    """The sequential rule: 10,000 artifacts whose true loss is the budget, judged after every look."""
    random, budget = np.random.default_rng(1), 0.01
    shares = (budget + churn / 2, churn / 2, 1 - budget - churn)
    counts, seen = np.zeros((10_000, 2), int), 0
    undecided, passed = np.ones(10_000, bool), 0
    for look, total in enumerate(looks(images), 1):
        counts += random.multinomial(total - seen, shares, size=10_000)[:, :2]
        seen, level = total, level_of_look(look, last=total == images)
        for row in np.flatnonzero(undecided):
            drop = drop_of_counts(*counts[row].tolist(), seen, 100 * budget, level)
            undecided[row] = drop.undecided
            passed += drop.high <= 100 * budget
    assert passed / 10_000 <= 0.025


def test_levels_of_all_looks_add_up_to_the_error():
    for images in (50, 500, 501, 10_000, 1_000_000):
        counts = looks(images)
        assert counts[-1] == images
        assert list(counts) == sorted(set(counts))
        levels = [level_of_look(look, last=look == len(counts)) for look in range(1, len(counts) + 1)]
        assert sum(levels) == pytest.approx(ERROR)


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


@pytest.mark.parametrize(("lost", "gained", "images"), [(0, 0, 357), (2, 1, 357), (9, 1, 400), (0, 0, 60)])
def test_the_number_of_images_that_would_decide(lost, gained, images):
    drop = drop_of_counts(lost, gained, images, 1.0)
    assert drop.undecided
    needed = images_to_decide(drop, images)
    for factor, undecided in ((needed / images, False), (0.85 * needed / images, True)):
        assert drop_of_counts(lost * factor, gained * factor, images * factor, 1.0).undecided is undecided


def test_no_number_of_images_decides_a_drop_of_the_budget():
    assert images_to_decide(drop_of_counts(4, 0, 400, 1.0), 400) is None


def largest_losses(images, budget, most_gained):
    """For each number of gained images the largest number of lost ones that passes; -1 if none does."""
    found, lost = [], 0
    for gained in range(most_gained + 1):
        while drop_of_counts(lost, gained, images, budget).high <= budget:
            lost += 1
        found.append(lost - 1)
    return np.array(found)


@pytest.mark.parametrize("budget", [0.5, 0.75, 1.0, 1.5, 2.0, 5.0])
@pytest.mark.parametrize("images", [50, 65, 90, 100, 125, 160, 200, 225, 250, 300, 357, 400, 500])
def test_the_chance_of_passing_a_drop_of_the_budget_by_all_outcomes(images, budget):
    """Exact, one look: the probability of every pair of counts whose upper end lies within the budget, summed."""
    binom = pytest.importorskip("scipy.stats").binom
    passing = largest_losses(images, budget, int(binom.ppf(1 - 1e-9, images, 0.075)))
    gained = np.arange(len(passing))
    for churn in (0.0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.07, 0.085, 0.1, 0.12, 0.15):
        lost_share, gained_share = budget / 100 + churn / 2, churn / 2
        within = binom.cdf(passing, images - gained, lost_share / (1 - gained_share))
        assert (binom.pmf(gained, images, gained_share) * within).sum() <= 0.025


@pytest.mark.parametrize("share", [0.0, 1 / 6, 0.5, 1.0])
def test_binomial_tail_by_enumeration(share):
    for count in range(7):
        wins = (trials for trials in itertools.product((True, False), repeat=6) if sum(trials) >= count)
        chances = [math.prod(share if won else 1 - share for won in trials) for trials in wins]
        assert binomial_tail(count, 6, share) == pytest.approx(math.fsum(chances))


@pytest.mark.parametrize(("count", "trials", "share"), [(600, 1100, 0.5), (5000, 10_000, 0.49), (40, 40_000, 1e-3)])
def test_binomial_tail_of_many_trials(count, trials, share):
    binom = pytest.importorskip("scipy.stats", reason="scipy has exact distributions").binom
    assert binomial_tail(count, trials, share) == pytest.approx(binom.sf(count - 1, trials, share), rel=1e-9)
