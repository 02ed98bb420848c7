"""Accuracy class by class against counts by hand."""

from __future__ import annotations

import pytest
import torch

from robust_edge.run.per_class import (
    ClassAccuracy,
    balanced_accuracy,
    cause_of,
    describe_classes,
    lowest,
    no_better_than_constant,
    per_class,
)
from robust_edge_runtimes.core.manifest import LayerCount, Sparsity

LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 3])
CLEAN = torch.tensor([True, True, True, False, True, False, True])
ROBUST = torch.tensor([True, False, False, False, True, False, False])
ROWS = (ClassAccuracy("cat", 4, 3, 1), ClassAccuracy("dog", 2, 1, 1), ClassAccuracy("cow", 1, 1, 0))


def test_images_are_counted_by_class_and_empty_classes_are_left_out():
    assert per_class(("cat", "dog", "owl", "cow"), LABELS, CLEAN, ROBUST) == ROWS


def test_balanced_accuracies_are_means_over_the_classes():
    assert balanced_accuracy(ROWS) == pytest.approx(((3 / 4 + 1 / 2 + 1) / 3, (1 / 4 + 1 / 2 + 0) / 3))
    assert lowest(ROWS).name == "cow"
    text = describe_classes(ROWS)
    assert "balanced over 3 classes: clean 75.0%, attacked 25.0%" in text
    assert "class 'cow': 100.0% and 0.0% of 1 images" in text
    equal = (ClassAccuracy("cat", 4, 2, 1), ClassAccuracy("dog", 8, 4, 2))
    assert describe_classes(equal) == "balanced over 2 classes: clean 50.0%, attacked 25.0%"
    unattacked = [ClassAccuracy(row.name, row.images, row.clean, row.clean) for row in ROWS]
    text = describe_classes(unattacked, attacked=False)
    assert text == "balanced over 3 classes: clean 75.0%; lowest in class 'dog': 50.0% of 2 images"


@pytest.mark.parametrize(("right", "warned"), [(3, True), (4, True), (5, False)])
def test_a_network_that_only_knows_the_largest_class_is_told_as_such(right, warned):
    rows = (ClassAccuracy("many", 4, min(right, 4), 0), ClassAccuracy("few", 2, right - min(right, 4), 0))
    assert [f"right on {right} of 6" in line for line in no_better_than_constant(rows)] == [True] * warned


FULL = Sparsity.of_layers((LayerCount("body.weight", 9, 3), LayerCount("head.weight", 9, 1)))
EMPTY = Sparsity.of_layers((*FULL.layers, LayerCount("last.weight", 9, 0)))


@pytest.mark.parametrize(
    ("imported", "epoch", "sparsity", "says"),
    [
        (True, 0, FULL, "imported, not trained here"),
        (False, 0, FULL, "no epochs"),
        (False, 3, FULL, "learnt nothing"),
        (True, 0, EMPTY, "1 of its layers have zeros only, last.weight the last of them"),
    ],
)
def test_the_cause_is_that_of_the_run(imported, epoch, sparsity, says):
    cause = cause_of(imported=imported, epoch=epoch, sparsity=sparsity)
    (line,) = no_better_than_constant((ClassAccuracy("only", 4, 4, 0),), cause)
    assert "4 of 4 images (100.0%)" in line
    assert says in line
