"""Images that are read batch by batch give the very run that images in memory give."""

import dataclasses
import pickle

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from robust_edge.data import Split, StoredImages, load_dataset, stream
from robust_edge.data.settings import DataConfig
from robust_edge.data.stream import Streamed, source_of
from robust_edge.training.compress import compress
from robust_edge_runtimes.core.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """40 training and 12 test images in two classes, one brighter than the other."""
    root, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for i in range(52):
        path = root / ("train" if i < 40 else "test") / ("cat", "dog")[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(100 * (i % 2), 156 + 100 * (i % 2), (8, 8, 3), dtype=np.uint8)).save(path)
    return root


def load(root, **settings):
    return load_dataset(DataConfig(dataset="folder", dir=str(root), **settings))


def test_unread_images_are_the_read_ones(tree):
    read, stored = load(tree), load(tree, resident=False)
    assert isinstance(read.train.images, torch.Tensor)
    assert isinstance(stored.train.images, StoredImages)
    assert stored.shape == read.shape
    assert stored.fingerprint() == read.fingerprint()
    assert stored.channel_statistics() == read.channel_statistics()
    for index in (slice(3, 7), torch.tensor([5, 0, 39])):
        assert torch.equal(stored.train.floats(index), read.train.floats(index))
    assert torch.equal(stored.train.to(CPU).images, read.train.images)
    assert stored.train.floats(slice(0, 0)).shape == (0, 3, 8, 8)


def test_parts_of_unread_images_stay_unread(tree):
    read, stored = load(tree), load(tree, resident=False)
    index = torch.tensor([7, 2, 30])
    for part, expected in (
        (stored.train.take(index), read.train.take(index)),
        (stored.test.first(4), read.test.first(4)),
    ):
        assert isinstance(part.images, StoredImages)
        assert torch.equal(part.to(CPU).images, expected.images)
        assert torch.equal(part.labels, expected.labels)
    assert torch.equal(pickle.loads(pickle.dumps(stored.train.images)).read([3]), read.train.images[3:4])


def test_the_limit_decides_what_is_read(tree):
    assert isinstance(load(tree, resident_mib=1).train.images, torch.Tensor)
    assert isinstance(load(tree, resident_mib=0).train.images, StoredImages)
    assert isinstance(load(tree, resident_mib=0, resident=True).train.images, torch.Tensor)
    split = load(tree).train
    assert isinstance(source_of(split, CPU, stays=False, workers=0), Streamed)
    assert isinstance(source_of(split, CPU, stays=True, workers=0), Split)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_come_in_the_order_asked_for_epoch_after_epoch(tree, workers):
    split, stored = load(tree).train, load(tree, resident=False).train
    source = Streamed(stored, CPU, workers)
    assert len(source) == 40
    for seed in range(2):
        order = torch.randperm(40, generator=torch.Generator().manual_seed(seed)).split(9)
        before = torch.get_rng_state()
        found = list(source.batches(order))
        assert torch.equal(torch.get_rng_state(), before)
        for batch, expected in zip(found, split.batches(order), strict=True):
            assert torch.equal(batch.images, expected.images)
            assert torch.equal(batch.labels, expected.labels)


def test_there_are_no_more_workers_than_cores(tree, monkeypatch):
    monkeypatch.setattr(stream, "available_cores", lambda: 1)
    split = load(tree, resident=False).train
    assert [Streamed(split, CPU, workers).loader.num_workers for workers in (0, 1, 5)] == [0, 1, 1]


def test_a_worker_says_which_image_is_broken(tree, tmp_path):
    split = load(tree, resident=False).train
    (tmp_path / "broken.png").write_bytes(b"no image")
    paths = [tmp_path / "broken.png", *split.images.paths[1:]]
    broken = dataclasses.replace(split, images=type(split.images)(split.images.reader, paths))
    with pytest.raises(InputError, match=r"^[^\n]*broken\.png cannot be read as an image[^\n]*$"):
        list(Streamed(broken, CPU, 1).batches([torch.arange(4)]))


def test_a_streamed_run_ends_with_the_bytes_of_a_resident_one(tree, tiny, tmp_path):
    flags = {"data.dataset": "folder", "data.dir": str(tree), "data.augment": ["flip", "shift"]}
    flags |= {"data.limit_train": None, "training.batch_size": 16, "attack.steps": 1}
    written = []
    for resident in (True, False):
        compress(tiny({**flags, "data.resident": resident, "compute.workers": 1}), tmp_path / str(resident))
        written.append(safetensors.torch.load_file(tmp_path / str(resident) / "checkpoint.safetensors"))
    assert all(torch.equal(tensor, written[1][name]) for name, tensor in written[0].items())
