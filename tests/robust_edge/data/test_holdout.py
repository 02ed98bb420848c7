"""What is set aside: the right number, every class alike, nothing twice, the same at every call."""

import pytest
import torch

from robust_edge.data import Split
from robust_edge.data.holdout import hold_out, shortened
from robust_edge_runtimes.core.errors import InputError


def split_of(count=60, classes=4):
    images = torch.arange(count).to(torch.uint8).view(count, 1, 1, 1)
    return Split(images, torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(3)), 99)


def values(split):
    return split.images.flatten().tolist()


@pytest.mark.parametrize("count", [1, 8, 30])
def test_the_parts_are_the_whole(count):
    whole = split_of()
    train, held = hold_out(whole, count)
    assert len(held) == count
    assert sorted(values(train) + values(held)) == values(whole)
    assert values(train) == sorted(values(train))  # the old order
    assert train.levels == held.levels == 99
    for part in (train, held):
        assert part.labels.tolist() == whole.labels[values(part)].tolist()


def test_every_class_has_its_share():
    _, held = hold_out(split_of(200), 20)
    assert torch.bincount(held.labels).tolist() == [5, 5, 5, 5]


def test_the_same_images_every_time_and_not_the_first_ones():
    first, again = hold_out(split_of(), 8)[1], hold_out(split_of(), 8)[1]
    assert values(first) == values(again)
    assert max(values(first)) > 20


def test_nothing_held_out_is_the_split_itself():
    whole = split_of()
    train, held = hold_out(whole, 0)
    assert train is whole
    assert len(held) == 0


@pytest.mark.parametrize("count", [31, 60, 1000])
def test_a_fifth_is_held_out_where_more_than_half_was_asked_for(count):
    assert [len(part) for part in hold_out(split_of(), count)] == [48, 12]
    assert "12 of 60" in shortened(60, count)
    assert shortened(60, 30) is None


def test_too_few_images_to_hold_one_out():
    assert [len(part) for part in hold_out(split_of(5), 9)] == [4, 1]
    with pytest.raises(InputError, match=r"selection\.held_out is 1, but there are only 4.*selection\.held_out=0"):
        hold_out(split_of(4), 1)
