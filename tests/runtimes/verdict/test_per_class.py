from __future__ import annotations

import dataclasses

import numpy as np

from robust_edge_runtimes.present.verdict import class_line
from robust_edge_runtimes.verdict.per_class import ClassFigures, balanced, figures_by_class
from tests.runtimes.verdict.test_measurement import measurement

CLASSES = ("a", "b", "c")
LABELS = np.array([0, 0, 0, 2])  # of the images 10 to 13


def labelled(mode, artifact, **changes):
    found = measurement(mode, np.arange(10, 14), np.array(artifact, bool), np.ones(4, bool), **changes)
    return dataclasses.replace(found, labels=LABELS)


def test_every_class_is_counted_over_all_modes():
    modes = [labelled("surrogate", [1, 0, 1, 1]), labelled("whitebox", [1, 1, 0, 1])]
    found = figures_by_class(modes, CLASSES)
    assert [(item.name, item.images, item.reference_robust, item.artifact_robust) for item in found] == [
        ("a", 3, 3, 1),
        ("c", 1, 1, 1),
    ]
    assert balanced(found, "artifact_robust") == (1 / 3 + 1) / 2
    joined = modes[0].joined(dataclasses.replace(modes[0], ids=modes[0].ids + 10))
    assert [item.images for item in figures_by_class([joined], CLASSES)] == [6, 2]
    assert figures_by_class([dataclasses.replace(modes[0], labels=None)], CLASSES) == ()


def test_the_line_names_the_class_with_the_lowest_accuracy():
    line = class_line([ClassFigures("cat", 4, 4, 4, 4, 1), ClassFigures("dog", 2, 2, 1, 1, 1)])
    assert line == (
        "balanced over 2 classes: clean 75.0% (checkpoint 100.0%), attacked 37.5% (75.0%); lowest in class 'cat': "
        "100.0% and 25.0% of 4 images"
    )
