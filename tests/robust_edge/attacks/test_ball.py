"""Projections against geometry: nothing outside, nothing moved that was inside, nearest points."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robust_edge.attacks.ball import confine, lengths, project, start_points, steepest
from robust_edge_runtimes.attacks.threat import L2, LINF, NORMS, Threat

norms = st.sampled_from(NORMS)


def images_of(seed, count=5, scale=1.0):
    return torch.rand((count, 2, 3, 3), generator=torch.Generator().manual_seed(seed)) * scale


@given(st.integers(0, 10**6), norms, st.floats(1e-3, 2.0))
def test_a_projection_lies_in_the_ball_and_in_the_pixel_range_and_is_its_own(seed, norm, eps):
    centre = images_of(seed)
    points = centre + 4 * (images_of(seed + 1) - 0.5)
    moved = project(points, centre, Threat(eps, norm))
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert (lengths(moved - centre, norm) <= eps * (1 + 1e-5)).all()
    assert torch.allclose(project(moved, centre, Threat(eps, norm)), moved, atol=1e-6)


def test_a_projection_on_a_sphere_is_the_nearest_point():
    centre = torch.full((1, 1, 1, 2), 0.5)
    point = torch.tensor([[[[0.8, 0.9]]]])
    expected = centre + (point - centre) * 0.1 / 0.5  # the offset is (0.3, 0.4), of length 0.5
    assert torch.allclose(project(point, centre, Threat(0.1, L2)), expected)
    assert torch.allclose(project(point, centre, Threat(0.1)), torch.full_like(point, 0.6))


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_inside_is_left_bit_by_bit_and_what_is_outside_comes_back(norm):
    centre = images_of(3)
    inside = project(centre + 0.05 * (images_of(4) - 0.5), centre, Threat(0.1, norm))
    same, outside = confine(inside, centre, Threat(0.1, norm))
    assert torch.equal(same, inside)
    assert not outside.any()
    far = inside.clone()
    far[1] += 1.0
    far[2, 0, 0, 0] = float("nan")
    back, outside = confine(far, centre, Threat(0.1, norm))
    assert outside.tolist() == [False, True, True, False, False]
    assert (lengths(back - centre, norm) <= 0.1 * (1 + 1e-5)).all()
    assert back.isfinite().all()


@pytest.mark.parametrize(("norm", "length"), [(LINF, 1.0), (L2, 1.0)])
def test_no_direction_of_unit_length_rises_faster(norm, length):
    gradient = images_of(5) - 0.5
    best = (steepest(gradient, norm) * gradient).flatten(1).sum(1)
    assert torch.allclose(lengths(steepest(gradient, norm), norm), torch.full((5,), length))
    for seed in range(50):
        other = images_of(seed + 100) - 0.5
        other = other / lengths(other, norm).view(-1, 1, 1, 1)
        assert ((other * gradient).flatten(1).sum(1) <= best + 1e-6).all()


@pytest.mark.parametrize("norm", NORMS)
def test_a_start_depends_on_the_image_and_not_on_its_batch(norm):
    images = images_of(6)
    together = start_points(images, Threat(0.1, norm), 7, [3, 1, 4, 0, 9], 0)
    alone = start_points(images[2:3], Threat(0.1, norm), 7, [4], 0)
    assert torch.equal(together[2:3], alone)
    assert not torch.equal(together, start_points(images, Threat(0.1, norm), 8, [3, 1, 4, 0, 9], 0))
    assert not torch.equal(together, start_points(images, Threat(0.1, norm), 7, [3, 1, 4, 0, 9], 1))
    assert (lengths(together - images, norm) <= 0.1 * (1 + 1e-5)).all()


def test_starts_fill_the_ball():
    images = torch.full((400, 1, 1, 2), 0.5)
    for norm, inner in ((LINF, 0.25), (L2, 0.25)):  # in two dimensions half the radius holds a quarter of the volume
        reach = lengths(start_points(images, Threat(0.2, norm), 0, range(400), 0) - images, norm)
        assert reach.max() > 0.19
        assert abs(float((reach < 0.1).float().mean()) - inner) < 0.07
