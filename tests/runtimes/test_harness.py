from __future__ import annotations

import numpy as np
import pytest

from robust_edge_runtimes import harness
from robust_edge_runtimes.errors import InputError
from robust_edge_runtimes.harness import NullRuntime, call_cost, weighed


def test_the_null_runtime_checks_like_any_other(opened, golden, tmp_path):
    with NullRuntime(tmp_path, opened.manifest) as model:
        assert np.array_equal(model.infer(golden.clean[:3]), np.zeros((3, 4), np.float32))
        with pytest.raises(InputError, match="pixels must lie"):
            model.infer(golden.clean[:1] + 1)


def test_the_cost_is_the_median_of_many_calls(opened, golden, monkeypatch):
    counted = []

    def samples(call, seconds, least):
        call()
        counted.append((seconds, least))
        return [1, 2, 30, 4, 5]

    monkeypatch.setattr(harness, "samples_of", samples)
    assert call_cost(opened.manifest, golden.clean, 0.01) == 4
    assert counted == [(0.01, harness.LEAST_CALLS)]


def test_it_costs_something_and_not_much(opened, golden):
    assert 0 < call_cost(opened.manifest, golden.clean, 0.02) < 1e6


@pytest.mark.parametrize(("cost", "heavy"), [(199, False), (200, False), (201, True)])
def test_more_than_a_fiftieth_is_flagged(cost, heavy):
    found = weighed(cost, "fast", 10_000)
    assert (found.share, found.heavy, found.fastest) == (cost / 10_000, heavy, "fast")
