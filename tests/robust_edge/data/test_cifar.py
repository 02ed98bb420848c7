"""The CIFAR reader on a stand-in for torchvision's classes: the set itself is a download."""

import numpy as np
import pytest
import torch

from robust_edge.data import load_dataset
from robust_edge.data.settings import DataConfig
from robust_edge.torchvision_compat import torchvision_module
from robust_edge_runtimes.core.errors import InputError

calls = []


class Stored:
    """What torchvision.datasets.CIFAR10 offers once it has read its files."""

    def __init__(self, root, train=True, download=False):
        calls.append((root, train, download))
        count = 30 if train else 20
        self.data = np.random.default_rng(int(train)).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        self.targets = [i % 10 for i in range(count)]
        self.classes = [f"class{i}" for i in range(10)]


@pytest.fixture
def stored(monkeypatch):
    calls.clear()
    for name in ("CIFAR10", "CIFAR100"):
        monkeypatch.setattr(torchvision_module("datasets"), name, Stored)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.usefixtures("stored")
def test_images_become_channels_first_and_labels_stay(name):
    dataset = load_dataset(DataConfig(dataset=name, dir="here"))
    assert dataset.name == name
    assert dataset.shape == (3, 32, 32)
    assert dataset.classes == tuple(f"class{i}" for i in range(10))
    assert (len(dataset.train), len(dataset.test)) == (30, 20)
    original = Stored("", train=False)
    for image, label in zip(dataset.test.images, dataset.test.labels, strict=True):
        rows = [i for i in range(20) if np.array_equal(original.data[i].transpose(2, 0, 1), image.numpy())]
        assert [original.targets[i] for i in rows] == [int(label)]


@pytest.mark.usefixtures("stored")
def test_limits_and_download_are_passed_on():
    dataset = load_dataset(DataConfig(dataset="cifar10", dir="here", download=True, limit_train=20, limit_test=10))
    assert torch.bincount(dataset.train.labels).tolist() == [2] * 10
    assert len(dataset.test) == 10
    assert calls == [("here", True, True), ("here", False, True)]


def test_a_set_that_is_not_there_says_how_to_get_it(tmp_path):
    with pytest.raises(InputError, match=r"cifar10 is not in .*set data\.download"):
        load_dataset(DataConfig(dataset="cifar10", dir=str(tmp_path)))


def test_no_data_dir():
    with pytest.raises(InputError, match=r"cifar100 needs data\.dir, "):
        load_dataset(DataConfig(dataset="cifar100"))
