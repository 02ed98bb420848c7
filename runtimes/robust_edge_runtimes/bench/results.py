"""The results of `bench`: latencies, cold starts and speed-ups of several bundles."""

from __future__ import annotations

import dataclasses
from typing import Dict, Optional, Sequence, Tuple

import numpy as np

from robust_edge_runtimes.bench.cold_start import ColdStart
from robust_edge_runtimes.bench.energy import EnergySource
from robust_edge_runtimes.bench.harness import Harness
from robust_edge_runtimes.core.environment import Machine
from robust_edge_runtimes.core.runtime import RuntimeInfo

UNSTABLE_SPREAD = 0.15


@dataclasses.dataclass(frozen=True)
class Latency:
    """The times of one protocol on one bundle, each of one call, in nanoseconds.

    Attributes:
        images: number of images in one call.
        n: number of timed calls.
        throughput: images per second at the median.
        spread: (slowest − fastest slice median) / median over the slices of the run.
        unstable: `spread` is above 0.15: the speed of the machine changed during the measurement.
        samples_ns: the time of every call, in the order of measurement.
        joules_per_image: of everything that the entry's energy counter measures; None without a counter.
    """

    protocol: str
    images: int
    n: int
    min_ns: float
    p50_ns: float
    p90_ns: float
    p99_ns: float
    mean_ns: float
    std_ns: float
    throughput: float
    spread: float
    unstable: bool
    samples_ns: Tuple[int, ...]
    joules_per_image: Optional[float] = None


@dataclasses.dataclass(frozen=True)
class Entry:
    """The results of one bundle.

    Attributes:
        label: the bundle's name in tables.
        max_logit_error: largest error of the timed model's logits on the golden images, before and after the timed
            calls; relative to the largest absolute golden logit.
        speedup: protocol to the baseline's median divided by this bundle's median; 1 for the baseline.
        fixed_batch: number of images that every call computes, even if fewer are given; None for any number.
        dense_kernels: whether the runtime multiplies by zeros, too, so that pruning makes no network faster.
        energy: the counter of `joules_per_image`, or why there is none.
    """

    label: str
    target: str
    artifact_sha256: str
    artifact_bytes: int
    keep: float
    runtime: RuntimeInfo
    cold_start: ColdStart
    max_logit_error: float
    latencies: Tuple[Latency, ...]
    speedup: Dict[str, float]
    fixed_batch: Optional[int] = None
    energy: Optional[EnergySource] = None
    dense_kernels: bool = False


@dataclasses.dataclass(frozen=True)
class Bench:
    """The results of all bundles of one interleaved run.

    Attributes:
        baseline: label of the bundle that the speed-ups refer to.
        harness: the overhead of the measurement itself.
        max_p90_ms: the latency budget of one image; None without one.
        over_budget: one line for each bundle that exceeds it.
    """

    machine: Machine
    threads: int
    baseline: str
    entries: Tuple[Entry, ...]
    harness: Optional[Harness] = None
    max_p90_ms: Optional[float] = None
    over_budget: Tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether every bundle is within the budget."""
        return not self.over_budget


def summarise(protocol: str, images: int, slices: Sequence[Sequence[int]]) -> Latency:
    """Compute percentiles and stability.

    Args:
        protocol: ONE_IMAGE or N_IMAGES.
        images: number of images in one call.
        slices: times of calls in nanoseconds, one list per slice of the run.
    """
    samples = np.array([sample for part in slices for sample in part], dtype=np.float64)
    medians = [float(np.median(part)) for part in slices if part]
    p50, p90, p99 = (float(value) for value in np.percentile(samples, (50, 90, 99)))
    spread = (max(medians) - min(medians)) / p50
    return Latency(
        protocol=protocol,
        images=images,
        n=len(samples),
        min_ns=float(samples.min()),
        p50_ns=p50,
        p90_ns=p90,
        p99_ns=p99,
        mean_ns=float(samples.mean()),
        std_ns=float(samples.std()),
        throughput=images * 1e9 / p50,
        spread=spread,
        unstable=spread > UNSTABLE_SPREAD,
        samples_ns=tuple(int(sample) for sample in samples),
    )
