from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from robust_edge.verification.paired_pgd import paired_pgd
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.scoring import margins

SPEC = AttackSpec("pgd", 0.08, 6, 0.02, 3)


@pytest.fixture(scope="module")
def artifact(linear):
    """Close to the reference, but not the same network."""
    noise = np.random.default_rng(5).normal(0, 0.4, linear.weight.shape).astype(np.float32)
    return dataclasses.replace(linear, weight=linear.weight + noise)


def one_by_one(artifact, reference, images, labels, spec):
    """Every image alone, every step, nothing skipped: what the batched attack must agree with."""
    noise = np.random.default_rng(spec.seed).uniform(-spec.eps, spec.eps, images.shape)
    outcome = []
    for image, label, start in zip(images, labels, noise, strict=True):
        truth = np.array([label])
        low, high = np.maximum(image - spec.eps, 0), np.minimum(image + spec.eps, 1)
        x = np.clip(image + start, low, high).astype(np.float32)
        points = [image]
        for _ in range(spec.steps):
            points.append(x)
            step = np.float32(spec.step_size) * np.sign(reference.gradient(x[None], truth)[0])
            x = np.clip(x + step, low, high)
        points.append(x)
        held = [all(net.logits(p[None])[0].argmax() == label for p in points) for net in (artifact, reference)]
        outcome.append(held)
    return np.array(outcome).T


@pytest.mark.parametrize("spec", [SPEC, dataclasses.replace(SPEC, steps=0), dataclasses.replace(SPEC, eps=0.02)])
def test_it_agrees_with_attacking_every_image_alone(linear, artifact, golden, spec):
    expected = one_by_one(artifact, linear, golden.clean, golden.labels, spec)
    outcome = paired_pgd(artifact.logits, linear, golden.clean, golden.labels, spec)
    assert np.array_equal(outcome.artifact_right, expected[0])
    assert np.array_equal(outcome.reference_right, expected[1])
    if spec.steps and spec.eps == SPEC.eps:  # the comparison says something only where both outcomes occur
        assert 0 < expected[0].sum() < len(golden.labels)
        assert (expected[0] != expected[1]).any()


def test_a_linear_network_falls_exactly_where_the_margin_says(linear, golden):
    """For two classes of equal gradient signs the worst point of the ball is known: x + eps sign(gradient)."""
    two = dataclasses.replace(linear, weight=linear.weight[:2], bias=linear.bias[:2])
    labels = two.logits(golden.clean).argmax(1)
    spec = AttackSpec("pgd", 0.05, 10, 0.05, 0)
    outcome = paired_pgd(two.logits, two, golden.clean, labels, spec)
    worst = golden.clean + np.float32(spec.eps) * np.sign(two.gradient(golden.clean, labels))
    expected = two.logits(np.clip(worst, 0, 1)).argmax(1) == labels
    assert 0 < expected.sum() < len(labels)
    assert np.array_equal(outcome.reference_right, expected)
    assert np.array_equal(outcome.artifact_right, expected)


def test_every_point_lies_in_the_ball_and_in_the_pixel_range(linear):
    random = np.random.default_rng(1)
    images = random.uniform(0, 1, (24, 1, 4, 4)).astype(np.float32)
    images[0], images[1] = 0, 1
    labels = linear.logits(images).argmax(1)
    seen = []

    def score(points):
        seen.append(points.copy())
        return np.eye(4, dtype=np.float32)[labels[rows(points)]]

    def rows(points):
        return [int(np.abs(images - point).max(axis=(1, 2, 3)).argmin()) for point in points]

    paired_pgd(score, linear, images, labels, dataclasses.replace(SPEC, step_size=0.5))
    points = np.concatenate(seen[1:])
    assert len(points) == 7 * 24
    assert points.dtype == np.float32
    assert points.min() >= 0
    assert points.max() <= 1
    distance = np.array([np.abs(images - point).max(axis=(1, 2, 3)).min() for point in points])
    assert distance.max() <= SPEC.eps + 1e-6
    assert distance.max() >= SPEC.eps - 1e-6  # large steps reach the border


def test_images_that_both_networks_lost_are_not_asked_again(linear, golden):
    sizes = []

    def score(points):
        sizes.append(len(points))
        return np.full((len(points), 4), np.nan, np.float32)

    class Wrong:
        def logits_and_gradient(self, images, labels):
            return -linear.logits(images), linear.gradient(images, labels)

    outcome = paired_pgd(score, Wrong(), golden.clean, golden.labels, SPEC)
    assert sizes == [len(golden.labels)]
    assert not outcome.artifact_right.any()
    assert not outcome.reference_right.any()
    assert outcome.zero_gradients == 0


def test_the_share_of_zero_gradients_is_counted_over_all_steps():
    images = np.full((8, 1, 4, 4), 0.2, np.float32)
    images[:2] = 0.8
    labels = np.zeros(8, np.int64)

    class Blind:
        def logits_and_gradient(self, points, truth):
            gradient = np.zeros_like(points)
            gradient[points.mean(axis=(1, 2, 3)) > 0.5, 0, 0, 0] = 1
            return self.score(points), gradient

        def score(self, points):
            return np.tile(np.array([1, 0, 0, 0], np.float32), (len(points), 1))

    outcome = paired_pgd(Blind().score, Blind(), images, labels, SPEC)
    assert outcome.zero_gradients == 6 / 8
    assert outcome.artifact_right.all()


@pytest.mark.filterwarnings("error")
def test_a_gradient_that_is_no_number_moves_nothing_and_counts_as_none(linear, golden):
    """Logits that overflow have such gradients; their candidates would leave the pixel range."""

    class Overflown:
        def logits_and_gradient(self, images, labels):
            return linear.logits(images), np.full_like(images, np.nan)

    outcome = paired_pgd(linear.logits, Overflown(), golden.clean, golden.labels, SPEC)
    assert outcome.zero_gradients == 1
    for worst in outcome.worst:
        assert np.abs(worst - golden.clean).max() <= SPEC.eps + 1e-6


def test_the_attack_comes_to_rest_where_the_loss_is_large(linear, golden):
    outcome = paired_pgd(linear.logits, linear, golden.clean, golden.labels, dataclasses.replace(SPEC, steps=20))
    worst = np.clip(golden.clean + SPEC.eps * np.sign(linear.gradient(golden.clean, golden.labels)), 0, 1)
    held, found = outcome.reference_right, outcome.worst[1]
    assert 0 < held.sum() < len(held)
    lowest = [margins(linear.logits(points), golden.labels)[held] for points in (found, worst)]
    np.testing.assert_allclose(*lowest, atol=1e-4)
    assert found.dtype == np.float32
    assert (linear.logits(found).argmax(1) == golden.labels)[~held].sum() == 0


def test_the_random_start_is_the_seeds(linear, artifact, golden):
    def first_points(seed):
        points = []
        paired_pgd(
            lambda x: points.append(x.copy()) or artifact.logits(x),
            linear,
            golden.clean,
            golden.labels,
            dataclasses.replace(SPEC, seed=seed),
        )
        return points[1]

    assert np.array_equal(first_points(3), first_points(3))
    assert not np.array_equal(first_points(3), first_points(4))


def test_arguments_are_left_alone(linear, golden):
    images, labels = golden.clean.copy(), golden.labels.copy()
    paired_pgd(linear.logits, linear, images, labels, SPEC)
    assert np.array_equal(images, golden.clean)
    assert np.array_equal(labels, golden.labels)


def test_progress_counts_every_step_once(linear, golden):
    seen = []
    attack = AttackSpec("pgd", 0.01, 4, 0.005, 0)
    paired_pgd(
        linear.logits,
        linear,
        golden.clean,
        golden.labels,
        attack,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(step, 4) for step in range(5)]


def test_an_image_without_a_gradient_is_scored_once_more_and_then_left(linear, golden):
    sizes = []

    class Blind:
        def logits_and_gradient(self, images, labels):
            return linear.logits(images), np.zeros_like(images)

    def score(points):
        sizes.append(len(points))
        return linear.logits(points)

    outcome = paired_pgd(score, Blind(), golden.clean, golden.labels, dataclasses.replace(SPEC, eps=0.001))
    assert sizes == [60, 60]
    assert outcome.zero_gradients == 1


def test_the_worst_point_is_the_one_of_the_smallest_margin_for_each_network(linear, artifact, golden):
    seen = []

    class Watched:
        def logits_and_gradient(self, images, labels):
            seen.append(images.copy())
            return linear.logits_and_gradient(images, labels)

    spec = dataclasses.replace(SPEC, eps=0.02)
    outcome = paired_pgd(artifact.logits, Watched(), golden.clean, golden.labels, spec)
    for network, worst in zip((artifact, linear), outcome.worst, strict=True):
        lowest = margins(network.logits(worst), golden.labels)
        for points in seen:
            if len(points) == len(lowest):
                assert (margins(network.logits(points), golden.labels) >= lowest - 1e-6).all()


def test_an_attack_may_start_from_given_points(linear, golden):
    seen = []
    start = golden.clean + np.float32(1)
    score = lambda points: seen.append(points.copy()) or linear.logits(points)  # noqa: E731
    paired_pgd(score, linear, golden.clean, golden.labels, SPEC, start=start)
    np.testing.assert_allclose(seen[1], np.minimum(golden.clean + np.float32(SPEC.eps), 1))
