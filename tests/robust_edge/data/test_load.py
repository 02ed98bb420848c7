"""Data sets by name, and what may be wrong with one of the user's own."""

import sys
from types import ModuleType

import pytest
import torch

from robust_edge.data import Dataset, Split, load_dataset
from robust_edge.data.settings import DataConfig
from robust_edge_runtimes.core.errors import InputError


def split_of(count=6, side=4, classes=2, **changes):
    images = torch.arange(count * side * side).remainder(200).view(count, 1, side, side).to(torch.uint8)
    return Split(**{"images": images, "labels": torch.arange(count) % classes, **changes})


@pytest.fixture
def own(monkeypatch):
    """Install `function` as the module own_data; returns the name to use it by."""

    def install(function):
        module = ModuleType("own_data")
        module.build, function.__module__ = function, "own_data"
        monkeypatch.setitem(sys.modules, "own_data", module)
        return DataConfig(dataset="own_data:build", dir="some/dir")

    return install


def refused(config, match):
    with pytest.raises(InputError, match=match) as caught:
        load_dataset(config)
    assert "\n" not in str(caught.value)


def test_the_user_s_function_gets_the_config(own):
    seen = []

    def build(config):
        seen.append(config)
        return Dataset("mine", ("a", "b"), split_of(), split_of())

    config = own(build)
    assert load_dataset(config).name == "mine"
    assert seen == [config]


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(InputError, match=r"unknown data\.dataset 'digit'; did you mean 'digits'"):
        DataConfig(dataset="digit")


@pytest.mark.parametrize("name", ["no_such_module:build", "json:no_such", ":build", "json:"])
def test_a_function_that_cannot_be_imported(name):
    refused(DataConfig(dataset=name), "cannot be imported")


def test_not_a_function():
    refused(DataConfig(dataset="json:__name__"), "is not a function but str")


def test_a_module_that_does_not_parse(tmp_path, monkeypatch):
    (tmp_path / "half_written.py").write_text("def build(:\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    refused(DataConfig(dataset="half_written:build"), "SyntaxError")


def test_a_function_that_raises(own):
    refused(own(lambda config: 1 / 0), "failed .ZeroDivisionError")


def test_a_function_of_another_signature(own):
    refused(own(lambda: None), "failed .TypeError")


def test_something_else_than_a_dataset(own):
    refused(own(lambda config: [1, 2]), r"returned list, not a robust_edge\.data\.Dataset")


@pytest.mark.parametrize(
    ("train", "test", "match"),
    [
        (split_of(1), split_of(), "1 training image"),
        (split_of(0), split_of(), "0 training image"),
        (split_of(), split_of(0), "0 test image"),
        (split_of(images=torch.zeros(6, 1, 4, 4)), split_of(), "training images must be uint8"),
        (split_of(), split_of(images=torch.zeros(6, 4, 4, dtype=torch.uint8)), "test images must be uint8"),
        (split_of(), split_of(side=5), r"test images have shape \(1, 5, 5\), but the training images \(1, 4, 4\)"),
        (split_of(labels=torch.zeros(6)), split_of(), "training labels must be int64"),
        (split_of(labels=torch.zeros(5, dtype=torch.int64)), split_of(), "training labels must be int64"),
        (split_of(classes=3), split_of(), "labels range from 0 to 2, but there are 2 classes"),
        (split_of(), split_of(labels=torch.arange(6) - 1), "labels range from -1"),
        (split_of(), split_of(levels=16), "but levels, the value of 1.0, is 16"),
    ],
)
def test_splits_that_cannot_be_trained_on(own, train, test, match):
    refused(own(lambda config: Dataset("mine", ("a", "b"), train, test)), match)


@pytest.mark.parametrize("names", [(0, 1), ("a", "a")])
def test_classes_are_different_texts(own, names):
    refused(own(lambda config: Dataset("mine", names, split_of(), split_of())), "for every class; the names are")


def test_a_split_of_something_else(own):
    images = (torch.zeros(6, 1, 4, 4, dtype=torch.uint8), torch.arange(6) % 2)
    refused(own(lambda config: Dataset("mine", ("a", "b"), split_of(), images)), "test images are tuple, not a Split")


def test_one_class(own):
    refused(own(lambda config: Dataset("mine", ("a",), split_of(classes=1), split_of(classes=1))), "has 1 class")
