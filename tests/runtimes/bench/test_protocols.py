from __future__ import annotations

import numpy as np
import pytest

from robust_edge_runtimes.bench import protocols
from robust_edge_runtimes.bench.protocols import n_images_call, one_image_call, repeat, time_calls


@pytest.fixture
def batches(Fake, make_manifest, linear, golden):
    """batches(batch, make) -> the images of every inference that `make(model)`'s call made, three times called."""

    def run(batch, make):
        with Fake(make_manifest(linear, golden, batch=batch), linear.logits) as fake:
            call = make(fake)
            for _ in range(3):
                call()
        return [event for event in fake.events if not isinstance(event, str)]

    return run


@pytest.mark.parametrize(("batch", "size"), [(None, 1), (1, 1), (8, 8)])
def test_one_image_fills_a_fixed_batch(batches, golden, batch, size):
    found = batches(batch, lambda model: one_image_call(model, golden.clean))
    assert [len(images) for images in found] == [size] * 3
    for turn, images in enumerate(found):
        assert all(np.array_equal(image, golden.clean[turn]) for image in images)


@pytest.mark.parametrize(("batch", "sizes"), [(None, [70]), (1, [1] * 70), (32, [32, 32, 32]), (70, [70]), (99, [99])])
def test_n_images_go_in_calls_of_the_fixed_batch(batches, golden, tmp_path, batch, sizes):
    found = batches(batch, lambda model: n_images_call(model, golden.clean, 70, tmp_path / "0"))
    assert [len(images) for images in found] == sizes * 3
    once = np.concatenate(found[: len(sizes)])
    assert np.array_equal(once[:60], golden.clean)
    assert np.array_equal(once[60:70], golden.clean[:10])
    assert all(np.array_equal(image, golden.clean[9]) for image in once[70:])


def test_samples_are_the_time_of_each_call(monkeypatch):
    clock = [0]
    monkeypatch.setattr(protocols.time, "perf_counter_ns", lambda: clock[0])
    durations = iter([5, 7, 11, 13])

    def call():
        clock[0] += next(durations)

    assert time_calls(call, 20e-9, 1) == [5, 7, 11]
    assert time_calls(call, 1e-9, 1) == [13]


def test_repeat_says_how_often():
    calls = []
    assert repeat(lambda: calls.append(0), 0.01) == len(calls) > 1
    assert repeat(lambda: None, 0) == 1
