import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from robust_edge.data import load_dataset
from robust_edge.data.settings import DataConfig
from robust_edge_runtimes.core.errors import InputError


def test_counts_shapes_and_levels():
    dataset = load_dataset(DataConfig())
    assert (len(dataset.train), len(dataset.test)) == (1440, 357)
    assert dataset.shape == (1, 8, 8)
    assert dataset.classes == tuple("0123456789")
    pixels = dataset.train.floats(slice(None))
    assert pixels.dtype == torch.float32
    assert (float(pixels.min()), float(pixels.max())) == (0.0, 1.0)


def test_every_image_is_in_exactly_one_split_with_its_own_label():
    """Scikit-learn's arrays hold repeated scans, so images are counted with their labels, not just looked up."""
    bunch = load_digits()
    dataset = load_dataset(DataConfig())
    read = [
        (image.astype(np.uint8).tobytes(), int(label)) for image, label in zip(bunch.images, bunch.target, strict=True)
    ]
    ours = [
        (image.numpy().tobytes(), int(label))
        for split in (dataset.train, dataset.test)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    assert sorted(read) == sorted(ours)
    train, test = set(ours[:1440]), set(ours[1440:])
    assert not train & test


def test_both_splits_hold_every_class_in_its_share():
    dataset = load_dataset(DataConfig())
    for split, share in ((dataset.train, 144), (dataset.test, 35.7)):
        counts = torch.bincount(split.labels, minlength=10)
        assert (counts - share).abs().max() <= 4


def test_limits_take_classes_evenly():
    dataset = load_dataset(DataConfig(limit_train=200, limit_test=50))
    assert torch.bincount(dataset.train.labels).tolist() == [20] * 10
    assert torch.bincount(dataset.test.labels).tolist() == [5] * 10


def test_the_fingerprint_is_stable_and_tells_sets_apart():
    whole = load_dataset(DataConfig()).fingerprint()
    assert load_dataset(DataConfig()).fingerprint() == whole
    assert load_dataset(DataConfig(limit_train=200)).fingerprint() != whole
    assert load_dataset(DataConfig(limit_test=50)).fingerprint() != whole


@pytest.mark.parametrize("dataset", ["digits", "cifar10", "cifar100"])
@pytest.mark.parametrize(
    ("name", "value"), [("resize", "8x8"), ("crop", 4), ("channels", 3), ("background", (0, 0, 0))]
)
def test_settings_of_pictures_are_refused_where_images_have_one_size(dataset, name, value):
    with pytest.raises(InputError, match=rf"data\.{name} is .* images of data set {dataset} stay as they are"):
        load_dataset(DataConfig(dataset=dataset, dir="nowhere", **{name: value}))
