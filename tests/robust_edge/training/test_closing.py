"""The final evaluation of a run: its images, and the re-estimated batch-norm statistics."""

import pytest
import torch
from torch import nn

from robust_edge.config.settings import resolve
from robust_edge.data import Split
from robust_edge.models import Normalized
from robust_edge.training import closing


def split_of(labels, side=4):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (len(labels), 1, side, side), generator=generator).to(torch.uint8)
    return Split(images, labels)


def test_a_part_of_the_test_images_holds_as_many_of_every_class(monkeypatch):
    """Also where they lie sorted by class, as a user's own may."""
    monkeypatch.setattr(closing, "CLOSING_LIMIT", 9)
    chosen = closing._closing_images(split_of(torch.arange(60) // 20))
    assert chosen.labels.bincount().tolist() == [3, 3, 3]


def test_few_test_images_are_taken_as_they_are():
    split = split_of(torch.arange(60) // 20)
    assert closing._closing_images(split) is split


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("count", [2, 3, 8, 9, 17, 1000])
def test_statistics_are_taken_over_batches_of_like_size(eps, count):
    """The planes have one pixel, of which batch-norm needs two; 17 images are there."""
    torch.manual_seed(0)
    sizes, layers = [], [nn.Conv2d(1, 6, 4), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6, 3)]
    network = Normalized(nn.Sequential(*layers), [0.5], [0.25])
    network.network[1].register_forward_hook(lambda layer, inputs, _: sizes.append(len(inputs[0])))
    flags = {"training.batch_size": 8, "attack.eps": eps, "attack.steps": 1, "averaging.reestimate": count}
    closing.reestimate_statistics(network, split_of(torch.arange(17) % 3), resolve(flags=flags))
    own = sizes[1::2] if eps else sizes  # the attack looks at a copy, whose hooks come along
    assert sum(own) == min(count, 17) * (2 if eps else 1)
    assert max(own) - min(own) <= (2 if eps else 1)
    assert int(network.network[1].num_batches_tracked) == len(own)
