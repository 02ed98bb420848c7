"""Intervals in the notation of mathematics."""

import math

import pytest

from robust_edge.settings.ranges import Interval


@pytest.mark.parametrize(
    ("text", "inside", "outside", "words"),
    [
        ("(0, 1]", [1e-9, 1], [0, -1, 1.1, math.nan, math.inf], "above 0, at most 1"),
        ("[0, 1)", [0, 0.5], [-1e-9, 1, math.nan], "at least 0, below 1"),
        ("[0, 1]", [0, 1], [-0.1, 1.1, math.nan], "0 to 1"),
        ("(0, inf)", [1e-300, 1e300], [0, math.inf, math.nan], "above 0"),
        ("[1, inf)", [1, 10**30], [0, math.nan], "at least 1"),
        (f"[0, {2**63 - 1}]", [2**63 - 1], [2**63], f"0 to {2**63 - 1}"),  # beyond what a float tells apart
    ],
)
def test_an_interval(text, inside, outside, words):
    interval = Interval.parse(text)
    assert str(interval) == text
    assert interval.words == words
    assert all(value in interval for value in inside)
    assert not any(value in interval for value in outside)
