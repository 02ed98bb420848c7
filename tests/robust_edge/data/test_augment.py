"""Each augmentation does what it says, image by image."""

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from robust_edge.data.augment import MAX_ROTATION, augment


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def images_of(count=40, shape=(2, 16, 16), seed=0):
    return torch.rand(count, *shape, generator=generator(seed))


@hypothesis.given(
    st.permutations(["flip", "rotate", "shift"]),
    st.integers(0, 3),
    st.integers(1, 19),
    st.integers(1, 19),
    st.integers(),
)
def test_shape_range_and_repeatability(names, used, height, width, seed):
    images = images_of(5, (1, height, width), seed % 1000)
    chosen = names[:used]
    result = augment(images, chosen, generator(seed % 2**60))
    assert result.shape == images.shape
    assert result.dtype == images.dtype
    assert result.min() >= 0
    assert result.max() <= 1
    assert torch.equal(result, augment(images, chosen, generator(seed % 2**60)))


def test_nothing_named_nothing_changed():
    images = images_of()
    assert torch.equal(augment(images, (), generator()), images)


def test_the_input_is_left_alone():
    images = images_of()
    before = images.clone()
    augment(images, ("flip", "rotate", "shift"), generator())
    assert torch.equal(images, before)


def test_flip_mirrors_about_half_of_the_images():
    images = images_of(400)
    result = augment(images, ("flip",), generator())
    same = (result == images).flatten(1).all(1)
    mirrored = (result == images.flip(3)).flatten(1).all(1)
    assert torch.equal(same, ~mirrored)
    assert 160 < int(mirrored.sum()) < 240


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 32), (28, 28), (8, 24), (5, 7)])
@pytest.mark.parametrize("name", ["shift", "crop"])
def test_shift_moves_by_whole_pixels_up_to_an_eighth_and_zeros_move_in(height, width, name):
    images = images_of(300, (1, height, width)) + 1e-3
    result = augment(images.clamp_max(1), (name,), generator())
    down, right = max(1, height // 8), max(1, width // 8)
    seen = set()
    for image, moved in zip(images.clamp_max(1), result, strict=True):
        padded = torch.nn.functional.pad(image, (right, right, down, down))
        matches = {
            (y, x)
            for y in range(2 * down + 1)
            for x in range(2 * right + 1)
            if torch.equal(padded[:, y : y + height, x : x + width], moved)
        }
        assert len(matches) == 1
        seen |= matches
    assert len(seen) == min((2 * down + 1) * (2 * right + 1), len(seen))
    assert {y for y, _ in seen} == set(range(2 * down + 1))
    assert {x for _, x in seen} == set(range(2 * right + 1))


def angle_of(image):
    """Direction from the dark centre to the brightest spot, in pixels, as an angle in radians."""
    height, width = image.shape
    ys, xs = np.mgrid[:height, :width]
    weight = image / image.sum()
    y, x = (weight * ys).sum() - (height - 1) / 2, (weight * xs).sum() - (width - 1) / 2
    return np.arctan2(y, x), np.hypot(y, x)


@pytest.mark.parametrize(("height", "width"), [(41, 41), (41, 81), (81, 41)])
@pytest.mark.parametrize("direction", [0.0, np.pi / 2, 0.8])
def test_rotate_turns_about_the_centre_by_up_to_fifteen_degrees_and_keeps_distances(height, width, direction):
    """A blob at a known place must keep its distance from the centre in pixels, also in images that are no squares."""
    radius = 12
    ys, xs = np.mgrid[:height, :width]
    y, x = (height - 1) / 2 + radius * np.sin(direction), (width - 1) / 2 + radius * np.cos(direction)
    blob = np.exp(-((ys - y) ** 2 + (xs - x) ** 2) / 8).astype(np.float32)
    turned = augment(torch.from_numpy(blob).expand(200, 1, height, width), ("rotate",), generator())
    angles, distances = zip(*(angle_of(image[0].numpy()) for image in turned), strict=True)
    turns = (np.array(angles) - direction + np.pi) % (2 * np.pi) - np.pi
    assert np.abs(distances - np.float64(radius)).max() < 0.1
    assert np.abs(turns).max() <= MAX_ROTATION + 0.01
    assert turns.max() > 0.2
    assert turns.min() < -0.2


def test_images_of_one_batch_get_their_own_choices():
    same = images_of(1).expand(30, -1, -1, -1)
    for name in ("flip", "rotate", "shift"):
        assert len(torch.unique(augment(same, (name,), generator()).flatten(1), dim=0)) > 1
