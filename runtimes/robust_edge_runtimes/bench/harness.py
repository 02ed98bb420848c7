"""The overhead of the measurement: the same loop around a runtime that computes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Callable, Dict

import numpy as np

from robust_edge_runtimes.bench.protocols import one_image_call, repeat, time_calls
from robust_edge_runtimes.core.manifest import Manifest
from robust_edge_runtimes.core.runtime import BaseRuntime, RuntimeInfo

MAX_OVERHEAD = 0.02
MIN_CALLS = 200


@dataclasses.dataclass(frozen=True)
class Harness:
    """The part of a latency that the clock and the loop take, not the artifact.

    Attributes:
        call_ns: median time of one image on a runtime that computes nothing.
        check_ns: time of `infer` to check one image; applications spend it too, but no latency includes it.
        fastest: label of the bundle with the smallest median for one image.
        share: `call_ns` divided by that median.
        heavy: `share` is above 0.02; the overhead brings ratios between bundles that are this fast closer to 1.
    """

    call_ns: float
    check_ns: float
    fastest: str
    share: float
    heavy: bool


class NullRuntime(BaseRuntime):
    """Returns zeros for any image."""

    _zeros: Dict[int, np.ndarray]

    def open_impl(self) -> RuntimeInfo:
        """Load nothing."""
        self._zeros = {}
        return RuntimeInfo("null", "0", "cpu", "null", self.threads)

    def infer_impl(self, images: np.ndarray) -> np.ndarray:
        """Return (N, K) zeros, the same array for the same N."""
        count = len(images)
        if count not in self._zeros:
            self._zeros[count] = np.zeros((count, len(self.manifest.classes)), np.float32)
        return self._zeros[count]

    def close_impl(self) -> None:
        """Free nothing."""


def harness_of(manifest: Manifest, images: np.ndarray, seconds: float, fastest: str, fastest_ns: float) -> Harness:
    """Compare the overhead with the fastest bundle.

    Args:
        manifest: the manifest of the fastest bundle.
        images: images of that bundle; at least one.
        seconds: least time of each of two loops.
        fastest: label of that bundle.
        fastest_ns: median of that bundle for one image.
    """
    with NullRuntime(Path("null"), manifest) as model:
        call_ns = _median(one_image_call(model, images), seconds)
        first = images[: manifest.input.shape[0] or 1]
        with model.time_limit.timing(2 * seconds, MIN_CALLS):
            check_ns = max(_median(lambda: model.infer_all(first), seconds) - call_ns, 0.0)
    share = call_ns / fastest_ns
    return Harness(call_ns, check_ns, fastest, share, heavy=share > MAX_OVERHEAD)


def _median(call: Callable[[], object], seconds: float) -> float:
    repeat(call, seconds / 5)
    return float(np.median(time_calls(call, seconds, MIN_CALLS)))
