import dataclasses

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from robust_edge.data.dataset import Dataset, Split, evenly


def split_of(count=6, channels=3, seed=0, levels=255):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, levels + 1, (count, channels, 4, 5), generator=generator).to(torch.uint8)
    return Split(images, torch.arange(count) % 2, levels)


@pytest.fixture
def dataset():
    return Dataset("some", ("a", "b"), split_of(), split_of(seed=1))


def test_floats_divide_by_the_levels():
    split = Split(torch.tensor([[[[0, 8, 16]]]], dtype=torch.uint8), torch.tensor([1]), 16)
    assert split.floats(slice(None)).tolist() == [[[[0.0, 0.5, 1.0]]]]
    assert split.images.tolist() == [[[[0, 8, 16]]]]


def test_first_takes_the_beginning():
    split = split_of()
    assert torch.equal(split.first(2).images, split.images[:2])
    assert split.first(None) is split
    assert len(split.first(99)) == 6
    assert split_of(levels=16).first(2).levels == 16


@pytest.mark.parametrize("levels", [16, 255])
def test_channel_statistics_are_numpy_s(levels):
    split = split_of(count=9, levels=levels)
    mean, std = Dataset("some", ("a", "b"), split, split).channel_statistics()
    pixels = split.images.numpy() / levels
    assert mean == pytest.approx(np.mean(pixels, (0, 2, 3)), abs=6e-5)
    assert std == pytest.approx(np.std(pixels, (0, 2, 3), ddof=1), abs=6e-5)


def test_a_constant_channel_can_still_be_divided_by():
    split = Split(torch.full((4, 1, 2, 2), 7, dtype=torch.uint8), torch.arange(4) % 2)
    assert Dataset("flat", ("a", "b"), split, split).channel_statistics()[1] == (0.001,)


def test_the_fingerprint_follows_every_part(dataset):
    base = dataset.fingerprint()
    brighter, relabelled = dataset.test.images.clone(), dataset.train.labels.flip(0)
    brighter[-1, -1, -1, -1] ^= 1
    changed = [
        dataclasses.replace(dataset, name="other"),
        dataclasses.replace(dataset, classes=("b", "a")),
        dataclasses.replace(dataset, test=Split(brighter, dataset.test.labels)),
        dataclasses.replace(dataset, train=Split(dataset.train.images, relabelled)),
        dataclasses.replace(dataset, train=Split(dataset.train.images, dataset.train.labels, 254)),
        dataclasses.replace(dataset, train=dataset.test, test=dataset.train),
    ]
    assert len({base, *(other.fingerprint() for other in changed)}) == 1 + len(changed)


def test_the_fingerprint_is_of_values_and_not_of_memory_layout(dataset):
    train = dataset.train
    strided = Split(train.images.to(memory_format=torch.channels_last), train.labels)
    assert dataclasses.replace(dataset, train=strided).fingerprint() == dataset.fingerprint()


@hypothesis.given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.none() | st.integers(1, 50))
def test_evenly_takes_classes_in_turn(labels, limit):
    chosen = evenly(torch.tensor(labels), limit).tolist()
    assert len(set(chosen)) == len(chosen) == min(len(labels), limit or len(labels))
    counts = {label: sum(labels[i] == label for i in chosen) for label in set(labels)}
    for label, count in counts.items():
        more_left = count < labels.count(label)
        assert not more_left or count >= max(counts.values()) - 1
    for label in counts:  # within a class, in the order they came
        mine = [i for i in chosen if labels[i] == label]
        assert mine == sorted(mine)
