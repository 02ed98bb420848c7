"""How long an artifact takes: one image in memory, and n images with loading.

Source: Marshall 2020, Algorithm 4 (one image) and Algorithm 5 (n images). Several bundles are timed in
turn, in slices of the same run, so that their ratios hold on a machine whose speed drifts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from robust_edge_runtimes.bench.energy import EnergySource, Meter, find_meter, joules_per_call
from robust_edge_runtimes.bench.harness import Harness, harness_of
from robust_edge_runtimes.bench.protocols import (
    MOST_READY,
    N_IMAGES,
    ONE_IMAGE,
    n_images_call,
    one_image_call,
    repeat,
    samples_of,
)
from robust_edge_runtimes.core.bundle import Bundle, open_bundle
from robust_edge_runtimes.core.environment import Machine, machine
from robust_edge_runtimes.core.errors import BackendUnavailable, BundleError, InputError
from robust_edge_runtimes.core.runtime import BaseRuntime, RuntimeInfo
from robust_edge_runtimes.load import load
from robust_edge_runtimes.scoring import relative_error

ROUNDS = 10
UNSTABLE_SPREAD = 0.15
MAX_SECONDS = 3600
# Without the working folder on the path: it may be the bundle's, and what lies there is not to be imported.
_COLD_START = (
    "import sys; sys.path[:] = filter(None, sys.path); from robust_edge_runtimes.bench.cold_start import run; run()"
)


@dataclasses.dataclass(frozen=True)
class Latency:
    """One protocol on one bundle; times of one call, in nanoseconds.

    Attributes:
        images: images that are answered in the time.
        throughput: images per second at the median.
        spread: (slowest − fastest slice median) / median over the run's slices.
        unstable: `spread` is above 0.15: the machine's speed changed while it was measured.
        samples_ns: every call, in the order of measurement.
        joules_per_image: of all that the entry's energy counter covers; None without one.
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
class ColdStart:
    """A fresh process that opens the bundle and answers once.

    Attributes:
        load_ns: checking the bundle, importing the backend, loading the artifact.
        first_ns: the first inference of one image.
        peak_rss_bytes: largest resident size of that whole process, interpreter included.
    """

    load_ns: int
    first_ns: int
    peak_rss_bytes: int


@dataclasses.dataclass(frozen=True)
class Entry:
    """One bundle's figures.

    Attributes:
        label: how tables call it.
        max_logit_error: of the loaded model against the golden logits, relative to the largest one; the larger of
            before and after the timed calls.
        speedup: protocol to the baseline's median divided by this bundle's; 1 for the baseline.
        fixed_batch: images that every call of the artifact computes, however few are asked for; None for any number.
        energy: what counted `joules_per_image`, or why nothing did.
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


@dataclasses.dataclass(frozen=True)
class Bench:
    """All bundles of one interleaved run.

    Attributes:
        harness: what the measurement itself costs.
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
        """No bundle is over the budget."""
        return not self.over_budget


@dataclasses.dataclass(frozen=True)
class Contender:
    """A bundle that takes part, and what to call it; a stand-in was made for comparison, no budget binds it."""

    label: str
    bundle: Bundle
    stand_in: bool = False


def contenders(paths: Sequence[Path]) -> List[Contender]:
    """Open bundles, each called by its folder's name, or by its path where two share a name.

    Raises:
        InputError: the same bundle twice.
        BundleError: as `open_bundle`.
    """
    names = [path.name or str(path) for path in paths]
    labels = [str(path) if names.count(name) > 1 else name for path, name in zip(paths, names)]
    if len(set(labels)) < len(labels):
        raise InputError(f"{next(label for label in labels if labels.count(label) > 1)} is given twice; name it once")
    return [Contender(label, open_bundle(path)) for label, path in zip(labels, paths)]


def bench(
    contenders: Sequence[Contender],
    *,
    baseline: int = 0,
    images: int = 100,
    threads: int = 1,
    seconds: float = 1.0,
    min_samples: int = 30,
    max_p90_ms: Optional[float] = None,
    meter: Union[Meter, str, None] = None,
    progress: Optional[Callable[[int, int], None]] = None,
) -> Bench:
    """Time bundles against each other.

    Args:
        contenders: at least one.
        baseline: index of the bundle that the others are divided by.
        images: n of Algorithm 5.
        threads: CPU threads of one inference.
        seconds: least time per bundle and protocol.
        min_samples: least number of calls per bundle and protocol.
        max_p90_ms: budget for the 90th percentile of one image, of every contender that is no stand-in.
        meter: counts joules, or the reason why nothing does; None looks for one.
        progress: called with (slices done, slices in all).

    Raises:
        InputError: nothing to time, or a count below 1.
        BundleError: what was timed does not compute the golden logits.
    """
    if not contenders or images < 1 or not 0 < seconds <= MAX_SECONDS or min_samples < 1:
        raise InputError(
            f"bench needs a bundle, images >= 1 and seconds from 0 to {MAX_SECONDS}; got {images} images, {seconds} s"
        )
    if max_p90_ms is not None and not 0 < max_p90_ms < float("inf"):
        raise InputError(f"a latency budget is a number of milliseconds above 0; {max_p90_ms} is not")
    meter = find_meter() if meter is None else meter
    cold = [_cold_start(contender.bundle, threads) for contender in contenders]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        models = [stack.enter_context(load(contender.bundle, threads=threads)) for contender in contenders]
        errors = [_logit_error(model, contender, images) for model, contender in zip(models, contenders)]
        pictures = [contender.bundle.golden().clean for contender in contenders]
        single = [one_image_call(model, clean) for model, clean in zip(models, pictures)]
        several = [n_images_call(m, x, images, folder / str(i)) for i, (m, x) in enumerate(zip(models, pictures))]
        steps = _Steps(2 * ROUNDS * len(contenders), progress)
        ones = _interleaved(ONE_IMAGE, 1, single, seconds, min_samples, steps)
        many = _interleaved(N_IMAGES, images, several, seconds, max(min_samples // 3, 5), steps)
        after = [_logit_error(model, contender, images) for model, contender in zip(models, contenders)]
        infos = [model.info for model in models]
        metered = [
            [_with_energy(item, call, info.device, meter, seconds) for item, call in ((one, a), (more, b))]
            for one, a, more, b, info in zip(ones, single, many, several, infos)
        ]
    entries = []
    for i, contender in enumerate(contenders):
        base = {item.protocol: item.p50_ns for item in (ones[baseline], many[baseline])}
        entries.append(_entry(contender, infos[i], cold[i], max(errors[i], after[i]), metered[i], base))
    fastest = min(range(len(entries)), key=lambda i: ones[i].p50_ns)
    return Bench(
        machine=machine(),
        threads=threads,
        baseline=contenders[baseline].label,
        entries=tuple(entries),
        harness=harness_of(
            contenders[fastest].bundle.manifest,
            pictures[fastest],
            seconds / 2,
            contenders[fastest].label,
            ones[fastest].p50_ns,
        ),
        max_p90_ms=max_p90_ms,
        over_budget=tuple(_over_budget(contenders, entries, max_p90_ms)),
    )


def summarise(protocol: str, images: int, slices: Sequence[Sequence[int]]) -> Latency:
    """Percentiles and stability of samples (ns) that were taken in slices of one run."""
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


def _interleaved(
    protocol: str,
    images: int,
    calls: Sequence[Callable[[], None]],
    seconds: float,
    min_samples: int,
    steps: _Steps,
) -> List[Latency]:
    for call in calls:
        repeat(call, seconds / 5)
    slices: List[List[List[int]]] = [[] for _ in calls]
    for turn in range(ROUNDS):
        order = range(len(calls)) if turn % 2 == 0 else reversed(range(len(calls)))
        for i in order:
            slices[i].append(samples_of(calls[i], seconds / ROUNDS, -(-min_samples // ROUNDS)))
            steps.done()
    return [summarise(protocol, images, parts) for parts in slices]


def _with_energy(
    latency: Latency, call: Callable[[], None], device: str, meter: Union[Meter, str], seconds: float
) -> Tuple[Latency, EnergySource]:
    """Repeat a call under the meter, apart from the timed ones, which reading a counter would disturb."""
    joules, source = joules_per_call(meter, call, device, seconds)
    return dataclasses.replace(latency, joules_per_image=None if joules is None else joules / latency.images), source


def _over_budget(contenders: Sequence[Contender], entries: Sequence[Entry], max_p90_ms: Optional[float]) -> List[str]:
    """One line for each contender whose one-image p90 is above the budget."""
    if max_p90_ms is None:
        return []
    return [
        f"{entry.label}: p90 of one image is {item.p90_ns / 1e6:.3f} ms, the budget {max_p90_ms:g} ms"
        + (" (and the machine was unstable)" if item.unstable else "")
        for contender, entry in zip(contenders, entries)
        for item in entry.latencies
        if item.protocol == ONE_IMAGE and not contender.stand_in and item.p90_ns > max_p90_ms * 1e6
    ]


def _logit_error(model: BaseRuntime, contender: Contender, images: int) -> float:
    """Of the answers to all images at once, to single ones and to n, as they are timed."""
    golden = contender.bundle.golden()
    ready, several = np.arange(min(len(golden.labels), MOST_READY)), np.arange(images) % len(golden.labels)
    alone = [model.infer_all(golden.clean[i : i + 1]) for i in ready]
    logits = np.concatenate([model.infer_all(golden.clean), *alone, model.infer_all(golden.clean[several])])
    expected = np.concatenate([golden.clean_logits, golden.clean_logits[ready], golden.clean_logits[several]])
    error = relative_error(logits, expected)
    if not error <= golden.tolerance:
        raise BundleError(
            f"{contender.label}: the logits differ from the golden ones by {error:.2g} (relative), tolerance "
            f"{golden.tolerance:.2g}; what would be timed is not what was exported (run verify to see more)"
        )
    return error


def _cold_start(bundle: Bundle, threads: int) -> ColdStart:
    command = [sys.executable, "-c", _COLD_START, str(bundle.path), str(threads)]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise BackendUnavailable(f"{bundle.path} does not start: {done.stderr.decode(errors='replace').strip()}")
    return ColdStart(**json.loads(done.stdout))


def _entry(
    contender: Contender,
    info: RuntimeInfo,
    cold: ColdStart,
    error: float,
    metered: Sequence[Tuple[Latency, EnergySource]],
    base: Dict[str, float],
) -> Entry:
    manifest = contender.bundle.manifest
    sources = [source for _, source in metered]
    return Entry(
        label=contender.label,
        target=manifest.target,
        artifact_sha256=manifest.artifact.identity,
        artifact_bytes=manifest.artifact.total_bytes,
        keep=manifest.sparsity.keep,
        runtime=info,
        cold_start=cold,
        max_logit_error=error,
        latencies=tuple(latency for latency, _ in metered),
        speedup={latency.protocol: base[latency.protocol] / latency.p50_ns for latency, _ in metered},
        fixed_batch=manifest.input.shape[0],
        energy=next((source for source in sources if source.reason), sources[0]),
    )


class _Steps:
    """Counts slices for a progress bar."""

    def __init__(self, total: int, progress: Optional[Callable[[int, int], None]]) -> None:
        self.total = total
        self.count = 0
        self.progress = progress

    def done(self) -> None:
        self.count += 1
        if self.progress is not None:
            self.progress(self.count, self.total)
