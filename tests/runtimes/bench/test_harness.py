from __future__ import annotations

import numpy as np
import pytest

from robust_edge_runtimes.bench import harness
from robust_edge_runtimes.bench.harness import NullRuntime, harness_of
from robust_edge_runtimes.bench.protocols import time_calls
from robust_edge_runtimes.core.errors import InputError


def test_the_null_runtime_checks_like_any_other(opened, golden, tmp_path):
    with NullRuntime(tmp_path, opened.manifest) as model:
        assert np.array_equal(model.infer(golden.clean[:3]), np.zeros((3, 4), np.float32))
        with pytest.raises(InputError, match="pixels must lie"):
            model.infer(golden.clean[:1] + 1)


def test_medians_of_the_loop_and_of_the_checks(opened, golden, monkeypatch):
    loops = iter([[1, 2, 30, 4, 5], [10, 11, 12, 13, 100]])
    asked = []

    def samples(call, seconds, least):
        call()
        asked.append((seconds, least))
        return next(loops)

    monkeypatch.setattr(harness, "time_calls", samples)
    found = harness_of(opened.manifest, golden.clean, 0.01, "fast", 1000.0)
    assert (found.call_ns, found.check_ns, found.fastest, found.share) == (4, 8, "fast", 0.004)
    assert asked == [(0.01, harness.MIN_CALLS)] * 2


@pytest.mark.parametrize("batch", [None, 3])
def test_the_loop_costs_something_and_alone_does_not_check(make_manifest, linear, golden, batch, monkeypatch):
    checked, loops, real = [], [], NullRuntime.infer_all
    monkeypatch.setattr(NullRuntime, "infer_all", lambda self, images: checked.append(1) or real(self, images))

    def samples(call, seconds, least):
        checked.clear()
        found = time_calls(call, seconds, least)
        loops.append((len(checked), len(found)))
        return found

    monkeypatch.setattr(harness, "time_calls", samples)
    found = harness_of(make_manifest(linear, golden, batch=batch), golden.clean, 0.02, "fast", 1e6)
    assert found.call_ns > 0
    (alone, _), (checks, calls) = loops
    assert (alone, checks) == (0, calls)


@pytest.mark.parametrize(("fastest", "heavy"), [(10_001, False), (10_000, False), (9_999, True)])
def test_more_than_a_fiftieth_is_flagged(opened, golden, monkeypatch, fastest, heavy):
    monkeypatch.setattr(harness, "time_calls", lambda call, seconds, least: [200])
    assert harness_of(opened.manifest, golden.clean, 0.01, "fast", fastest).heavy is heavy
