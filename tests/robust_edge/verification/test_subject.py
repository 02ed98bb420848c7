import itertools

import numpy as np
import pytest
import torch

from robust_edge.data import Split
from robust_edge.verification.subject import shuffled_images
from robust_edge_runtimes.core.golden import Golden
from robust_edge_runtimes.verdict import images
from robust_edge_runtimes.verdict.images import NOISE


@pytest.fixture
def split():
    images = torch.randint(0, 256, (40, 1, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Split(images, torch.arange(40) % 4)


def golden_of(split, count):
    images = split.floats(slice(0, count)).numpy()
    zeros = np.zeros((count, 4), np.float32)
    return Golden(images, images, split.labels[:count].numpy(), zeros, zeros, 1e-3)


def positions(split, drawn):
    every = split.floats(slice(None)).numpy().reshape(len(split), -1)
    return [int(np.abs(every - image.ravel()).max(1).argmin()) for image in drawn.images]


def test_unseen_come_first_and_stay_as_they_are(split):
    golden = golden_of(split, 15)
    drawn = shuffled_images(split, golden, 1).draw(0, 25)
    found = positions(split, drawn)
    assert sorted(found) == list(range(15, 40))
    assert np.array_equal(drawn.clean, drawn.images)
    assert drawn.labels.tolist() == [position % 4 for position in found]
    assert drawn.ids.tolist() == [15 + position for position in found]


def test_stored_images_fill_up_under_noise_and_keep_their_numbers(split):
    golden = golden_of(split, 15)
    drawn = shuffled_images(split, golden, 1).draw(0, 40)
    assert sorted(positions(split, drawn)) == list(range(40))
    stored = drawn.ids < 15
    assert stored.sum() == 15
    assert np.array_equal(drawn.images[stored], golden.clean[drawn.ids[stored]])
    moved = np.abs(drawn.clean - drawn.images).max(axis=(1, 2, 3))
    assert (moved[stored] > 0).all()
    assert moved.max() <= NOISE + 1e-6
    assert (moved[~stored] == 0).all()
    assert len(set(drawn.ids.tolist())) == 40


def test_the_seed_draws(split):
    golden = golden_of(split, 5)
    one, same, other = (shuffled_images(split, golden, seed).draw(0, 10) for seed in (1, 1, 2))
    assert np.array_equal(one.ids, same.ids)
    assert set(one.ids.tolist()) != set(other.ids.tolist())
    counts = np.zeros(45)
    for seed in range(200):
        counts[shuffled_images(split, golden, seed).draw(0, 10).ids] += 1
    assert counts[:5].sum() == 0
    drawn = counts[10:]  # 35 unseen, each with probability 10/35: 57 of 200, six sigma wide
    assert (np.abs(drawn - 200 * 10 / 35) < 39).all()


@pytest.mark.parametrize("ends", [[25, 40], [10, 12, 39, 90], [40, 50]])
def test_parts_are_the_images_of_one_draw(split, ends, monkeypatch):
    """A part may end among the stored images; images are read in chunks to see whether they are stored."""
    monkeypatch.setattr(images, "CHUNK", 7)
    golden = golden_of(split, 15)
    whole, drawer = shuffled_images(split, golden, 1).draw(0, 40), shuffled_images(split, golden, 1)
    parts = [drawer.draw(start, stop) for start, stop in itertools.pairwise([0, *ends])]
    assert np.concatenate([part.ids for part in parts]).tolist() == whole.ids.tolist()
    assert np.array_equal(np.concatenate([part.images for part in parts if len(part)]), whole.images)
