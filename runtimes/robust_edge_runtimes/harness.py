"""What the measurement itself costs: the same loop around a runtime that computes nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from robust_edge_runtimes.manifest import Manifest
from robust_edge_runtimes.protocols import one_image_call, repeat, samples_of
from robust_edge_runtimes.runtime import BaseRuntime, RuntimeInfo

MAX_SHARE = 0.02
LEAST_CALLS = 200


@dataclasses.dataclass(frozen=True)
class Harness:
    """The part of a latency that is not the artifact's: clock, loop, and the checks of `infer`.

    Attributes:
        call_ns: median time of one image on a runtime that computes nothing.
        fastest: label of the bundle with the least median for one image.
        share: `call_ns` divided by that median.
        heavy: `share` is above 0.02; ratios between bundles that fast are drawn together by it.
    """

    call_ns: float
    fastest: str
    share: float
    heavy: bool


class NullRuntime(BaseRuntime):
    """Answers zeros without looking."""

    def open_impl(self) -> RuntimeInfo:
        """Nothing to load."""
        return RuntimeInfo("null", "0", "cpu", "null", self.threads)

    def infer_impl(self, images: np.ndarray) -> np.ndarray:
        """(N, K) zeros."""
        return np.zeros((len(images), len(self.manifest.classes)), np.float32)

    def close_impl(self) -> None:
        """Nothing to free."""


def call_cost(manifest: Manifest, images: np.ndarray, seconds: float) -> float:
    """Median nanoseconds of Algorithm 4 on a runtime that computes nothing.

    Args:
        manifest: of the bundle whose checks are to be paid.
        images: the bundle's own.
        seconds: least time.
    """
    with NullRuntime(Path("null"), manifest) as model:
        call = one_image_call(model, images)
        repeat(call, seconds / 5)
        return float(np.median(samples_of(call, seconds, LEAST_CALLS)))


def weighed(call_ns: float, fastest: str, fastest_ns: float) -> Harness:
    """The cost beside the fastest artifact's median."""
    share = call_ns / fastest_ns
    return Harness(call_ns, fastest, share, heavy=share > MAX_SHARE)
