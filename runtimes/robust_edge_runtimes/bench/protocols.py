"""The timed protocols: one image in memory, n images including reading them, and the loop that times a call.

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
MAX_PREPARED_IMAGES = 64


def one_image_call(model: BaseRuntime, images: np.ndarray) -> Callable[[], None]:
    """Algorithm 4: infer a single image that is already in memory and checked; every call takes the next image.

    An artifact with a fixed batch size computes a whole batch, since that is what one image costs there.
    """
    count = min(len(images), MAX_PREPARED_IMAGES)
    inferences = itertools.cycle([model.prepare(images[i : i + 1]) for i in range(count)])

    def call() -> None:
        next(inferences)()

    return call


def n_images_call(model: BaseRuntime, images: np.ndarray, count: int, path: Path) -> Callable[[], None]:
    """Algorithm 5: read n images from one file of floats and infer them as one batch; nothing is decoded.

    An artifact with a fixed batch size takes them in several calls.
    """
    stored = path.with_suffix(".npy")
    np.save(str(stored), images[np.arange(count) % len(images)])

    def call() -> None:
        model.infer_all(np.load(str(stored)))

    return call


def time_calls(call: Callable[[], object], seconds: float, min_samples: int) -> List[int]:
    """Call for `seconds`, and at least `min_samples` times; return the nanoseconds of each call."""
    samples: List[int] = []
    end = time.perf_counter_ns() + int(seconds * 1e9)
    while len(samples) < min_samples or time.perf_counter_ns() < end:
        start = time.perf_counter_ns()
        call()
        samples.append(time.perf_counter_ns() - start)
    return samples


def repeat(call: Callable[[], object], seconds: float) -> int:
    """Call for `seconds`, at least once; return the number of calls."""
    end = time.perf_counter() + seconds
    call()
    count = 1
    while time.perf_counter() < end:
        call()
        count += 1
    return count
