"""What the measurement itself costs: the same loop around a runtime that computes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Callable, Dict

import numpy as np

from robust_edge_runtimes.bench.protocols import one_image_call, repeat, samples_of
from robust_edge_runtimes.core.manifest import Manifest
from robust_edge_runtimes.core.runtime import BaseRuntime, RuntimeInfo

MAX_SHARE = 0.02
LEAST_CALLS = 200


@dataclasses.dataclass(frozen=True)
class Harness:
    """The part of a latency that is not the artifact's: clock and loop.

    Attributes:
        call_ns: median time of one image on a runtime that computes nothing.
        check_ns: what `infer` takes to check one image; in an application's time, in none of the latencies.
        fastest: label of the bundle with the least median for one image.
        share: `call_ns` divided by that median.
        heavy: `share` is above 0.02; ratios between bundles that fast are drawn together by it.
    """

    call_ns: float
    check_ns: float
    fastest: str
    share: float
    heavy: bool


class NullRuntime(BaseRuntime):
    """Answers zeros without looking."""

    _zeros: Dict[int, np.ndarray]

    def open_impl(self) -> RuntimeInfo:
        """Nothing to load."""
        self._zeros = {}
        return RuntimeInfo("null", "0", "cpu", "null", self.threads)

    def infer_impl(self, images: np.ndarray) -> np.ndarray:
        """(N, K) zeros, the same array for the same N."""
        count = len(images)
        if count not in self._zeros:
            self._zeros[count] = np.zeros((count, len(self.manifest.classes)), np.float32)
        return self._zeros[count]

    def close_impl(self) -> None:
        """Nothing to free."""


def harness_of(manifest: Manifest, images: np.ndarray, seconds: float, fastest: str, fastest_ns: float) -> Harness:
    """Weigh the measurement against the fastest artifact.

    Args:
        manifest: of the fastest bundle.
        images: its own; at least one.
        seconds: least time of each of two loops.
        fastest: its label.
        fastest_ns: its median for one image.
    """
    with NullRuntime(Path("null"), manifest) as model:
        call_ns = _median(one_image_call(model, images), seconds)
        first = images[: manifest.input.shape[0] or 1]
        check_ns = max(_median(lambda: model.infer_all(first), seconds) - call_ns, 0.0)
    share = call_ns / fastest_ns
    return Harness(call_ns, check_ns, fastest, share, heavy=share > MAX_SHARE)


def _median(call: Callable[[], object], seconds: float) -> float:
    repeat(call, seconds / 5)
    return float(np.median(samples_of(call, seconds, LEAST_CALLS)))
