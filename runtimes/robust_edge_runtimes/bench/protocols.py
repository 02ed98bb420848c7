"""What is timed: one image in memory, n images with loading, and the loop that times a call.

Source: Marshall 2020, Algorithm 4 (one image) and Algorithm 5 (n images).
"""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Callable, List

import numpy as np

from robust_edge_runtimes.core.runtime import BaseRuntime

ONE_IMAGE = "one_image"
N_IMAGES = "n_images"
MOST_READY = 64


def one_image_call(model: BaseRuntime, images: np.ndarray) -> Callable[[], None]:
    """Algorithm 4: a single sample, already in memory and checked, another one each time.

    An artifact of a fixed batch computes the whole batch for it, which is what one image costs there.
    """
    ready = [model.prepare(images[i : i + 1]) for i in range(min(len(images), MOST_READY))]
    turns = itertools.cycle(ready)

    def call() -> None:
        next(turns)()

    return call


def n_images_call(model: BaseRuntime, images: np.ndarray, count: int, path: Path) -> Callable[[], None]:
    """Algorithm 5: n images read from one file of floats, and run as one batch; decoding pictures is not in it.

    An artifact of a fixed batch takes them in several calls.
    """
    stored = path.with_suffix(".npy")
    np.save(str(stored), images[np.arange(count) % len(images)])

    def call() -> None:
        model.infer_all(np.load(str(stored)))

    return call


def samples_of(call: Callable[[], object], seconds: float, least: int) -> List[int]:
    """Nanoseconds of each call, for as long as said and at least so many."""
    samples: List[int] = []
    end = time.perf_counter_ns() + int(seconds * 1e9)
    while len(samples) < least or time.perf_counter_ns() < end:
        start = time.perf_counter_ns()
        call()
        samples.append(time.perf_counter_ns() - start)
    return samples


def repeat(call: Callable[[], object], seconds: float) -> int:
    """Call for as long as said, at least once; returns how often."""
    end = time.perf_counter() + seconds
    call()
    count = 1
    while time.perf_counter() < end:
        call()
        count += 1
    return count
