"""Measure the latency of artifacts: one image in memory, and n images including reading them.

Source: Marshall 2020, Algorithm 4 (one image) and Algorithm 5 (n images). Several bundles are timed
interleaved, in slices of the same run, so that their ratios hold on a machine whose speed drifts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import tempfile
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np

from robust_edge_runtimes.bench.cold_start import ColdStart, measure_cold_start
from robust_edge_runtimes.bench.energy import EnergySource, Meter, find_meter, joules_per_call
from robust_edge_runtimes.bench.harness import harness_of
from robust_edge_runtimes.bench.protocols import (
    MAX_PREPARED_IMAGES,
    N_IMAGES,
    ONE_IMAGE,
    n_images_call,
    one_image_call,
    repeat,
    time_calls,
)
from robust_edge_runtimes.bench.results import Bench, Entry, Latency, summarise
from robust_edge_runtimes.core.bundle import Bundle, open_bundle
from robust_edge_runtimes.core.closeness import most_above, number_above, relative_errors
from robust_edge_runtimes.core.environment import available_memory, machine
from robust_edge_runtimes.core.errors import BundleError, InputError
from robust_edge_runtimes.core.golden import Golden
from robust_edge_runtimes.core.limits import TimeLimit
from robust_edge_runtimes.core.runtime import BaseRuntime, RuntimeInfo
from robust_edge_runtimes.formats.table import format_named
from robust_edge_runtimes.load import load

ROUNDS = 10
MAX_SECONDS = 3600


@dataclasses.dataclass(frozen=True)
class Contender:
    """A bundle to time.

    Attributes:
        label: its name in tables.
        baseline_only: it was made for the comparison, and the latency budget does not apply to it.
    """

    label: str
    bundle: Bundle
    baseline_only: bool = False


@dataclasses.dataclass(frozen=True)
class _Loaded:
    """A contender with its open runtime and the calls to time."""

    contender: Contender
    model: BaseRuntime
    info: RuntimeInfo
    golden: Golden
    one_image: Callable[[], None]
    n_images: Callable[[], None]


def contenders(paths: Sequence[Path]) -> List[Contender]:
    """Open bundles; the label of each is the name of its folder, or its path where two names are equal.

    Raises:
        InputError: the same bundle is given twice.
        BundleError: as `open_bundle`.
    """
    names = [path.name or str(path) for path in paths]
    labels = [str(path) if names.count(name) > 1 else name for path, name in zip(paths, names)]
    if len(set(labels)) < len(labels):
        raise InputError(f"{next(label for label in labels if labels.count(label) > 1)} is given twice; give it once")
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
        baseline: index of the bundle that the speed-ups refer to.
        images: n of Algorithm 5.
        threads: CPU threads of one inference.
        seconds: least time per bundle and protocol.
        min_samples: least number of calls per bundle and protocol.
        max_p90_ms: budget for the 90th percentile of one image, of every contender that is not `baseline_only`.
        meter: counts joules, or the reason why nothing does; None to look for one.
        progress: called with (slices done, slices in total).

    Raises:
        InputError: there is no contender, or a setting is out of range.
        BundleError: a timed model does not compute the golden logits.
    """
    _check_settings(contenders, images, seconds, min_samples, max_p90_ms)
    meter = find_meter() if meter is None else meter
    cold_starts = [measure_cold_start(contender.bundle, threads) for contender in contenders]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        loaded = [_load(item, threads, images, folder / str(i), stack) for i, item in enumerate(contenders)]
        errors_before = [_logit_error(item, images) for item in loaded]
        tick = _tick(2 * ROUNDS * len(loaded), progress)
        limits = [item.model.time_limit for item in loaded]
        ones = _interleaved(ONE_IMAGE, 1, [item.one_image for item in loaded], limits, seconds, min_samples, tick)
        several = [item.n_images for item in loaded]
        many = _interleaved(N_IMAGES, images, several, limits, seconds, max(min_samples // 3, 5), tick)
        errors = [max(before, _logit_error(item, images)) for before, item in zip(errors_before, loaded)]
        measured = [_with_energies(item, one, n, meter, seconds) for item, one, n in zip(loaded, ones, many)]
    base = {ONE_IMAGE: ones[baseline].p50_ns, N_IMAGES: many[baseline].p50_ns}
    entries = [
        _entry(item, cold, error, latencies, energy, base)
        for item, cold, error, (latencies, energy) in zip(loaded, cold_starts, errors, measured)
    ]
    fastest = min(range(len(entries)), key=lambda i: ones[i].p50_ns)
    manifest, clean = contenders[fastest].bundle.manifest, loaded[fastest].golden.clean
    return Bench(
        machine=machine(),
        threads=threads,
        baseline=contenders[baseline].label,
        entries=tuple(entries),
        harness=harness_of(manifest, clean, seconds / 2, contenders[fastest].label, ones[fastest].p50_ns),
        max_p90_ms=max_p90_ms,
        over_budget=tuple(_over_budget(contenders, ones, max_p90_ms)),
    )


def _check_settings(
    contenders: Sequence[Contender], images: int, seconds: float, min_samples: int, max_p90_ms: Optional[float]
) -> None:
    if not contenders:
        raise InputError("there is no bundle to time; give at least one")
    if images < 1:
        raise InputError(f"images must be at least 1, not {images}")
    shapes = [item.bundle.manifest.input.shape[1:] for item in contenders]
    needed, free = 8 * images * max(math.prod(length or 1 for length in shape) for shape in shapes), available_memory()
    if free is not None and needed > free:
        raise InputError(
            f"images is {images}, which take {needed / 1e9:.3g} GB of memory, of which {free / 1e9:.3g} GB are free; "
            "choose fewer"
        )
    if not 0 < seconds <= MAX_SECONDS:
        raise InputError(f"seconds must be above 0 and at most {MAX_SECONDS}, not {seconds}")
    if min_samples < 1:
        raise InputError(f"min_samples must be at least 1, not {min_samples}")
    if max_p90_ms is not None and not 0 < max_p90_ms < float("inf"):
        raise InputError(f"max_p90_ms, the latency budget, must be a number of milliseconds above 0, not {max_p90_ms}")


def _load(contender: Contender, threads: int, images: int, path: Path, stack: contextlib.ExitStack) -> _Loaded:
    model = stack.enter_context(load(contender.bundle, threads=threads))
    golden = contender.bundle.golden()
    one_image = one_image_call(model, golden.clean)
    return _Loaded(contender, model, model.info, golden, one_image, n_images_call(model, golden.clean, images, path))


def _logit_error(loaded: _Loaded, images: int) -> float:
    """Check the logits of all golden images in one call, of single images, and of n images as they are timed."""
    model, golden = loaded.model, loaded.golden
    single = np.arange(min(len(golden.labels), MAX_PREPARED_IMAGES))
    several = np.arange(images) % len(golden.labels)
    alone = [model.infer_all(golden.clean[i : i + 1]) for i in single]
    logits = np.concatenate([model.infer_all(golden.clean), *alone, model.infer_all(golden.clean[several])])
    expected = np.concatenate([golden.clean_logits, golden.clean_logits[single], golden.clean_logits[several]])
    errors, precision = relative_errors(logits, expected), loaded.contender.bundle.manifest.artifact.precision
    above, most = number_above(errors, golden.tolerance), most_above(len(errors), precision)
    if above > most:
        raise BundleError(
            f"{loaded.contender.label}: the logits differ from the golden logits by {errors.max():.2g} (relative; "
            f"tolerance {golden.tolerance:.2g}), on {above} of {len(errors)} images by more than that ({most} may): "
            "the timed model is not the exported one; run verify for details"
        )
    return float(errors.max())


def _tick(total: int, progress: Optional[Callable[[int, int], None]]) -> Callable[[], None]:
    """A function that reports one more of `total` steps as done."""
    count = itertools.count(1)

    def tick() -> None:
        done = next(count)
        if progress is not None:
            progress(done, total)

    return tick


def _interleaved(
    protocol: str,
    images: int,
    calls: Sequence[Callable[[], None]],
    limits: Sequence[TimeLimit],
    seconds: float,
    min_samples: int,
    tick: Callable[[], None],
) -> List[Latency]:
    """Time each call in ROUNDS slices, the slices of all calls in turn; every other round in reverse order."""
    for call, limit in zip(calls, limits):
        with limit.timing(seconds / 5, images):
            repeat(call, seconds / 5)
    samples = -(-min_samples // ROUNDS)
    slices: List[List[List[int]]] = [[] for _ in calls]
    for turn in range(ROUNDS):
        order = range(len(calls)) if turn % 2 == 0 else reversed(range(len(calls)))
        for i in order:
            with limits[i].timing(seconds / ROUNDS, images * samples):
                slices[i].append(time_calls(calls[i], seconds / ROUNDS, samples))
            tick()
    return [summarise(protocol, images, parts) for parts in slices]


def _with_energies(
    loaded: _Loaded, one: Latency, several: Latency, meter: Union[Meter, str], seconds: float
) -> Tuple[Tuple[Latency, ...], EnergySource]:
    """Add joules per image. The calls are repeated for it, since reading a counter would disturb the timed ones."""
    latencies, sources = [], []
    for latency, call in ((one, loaded.one_image), (several, loaded.n_images)):
        with loaded.model.time_limit.timing(seconds, latency.images):
            joules, source = joules_per_call(meter, call, loaded.info.device, seconds)
        per_image = None if joules is None else joules / latency.images
        latencies.append(dataclasses.replace(latency, joules_per_image=per_image))
        sources.append(source)
    return tuple(latencies), next((source for source in sources if source.reason), sources[0])


def _entry(
    loaded: _Loaded,
    cold_start: ColdStart,
    error: float,
    latencies: Tuple[Latency, ...],
    energy: EnergySource,
    base: Dict[str, float],
) -> Entry:
    manifest = loaded.contender.bundle.manifest
    return Entry(
        label=loaded.contender.label,
        target=manifest.target,
        artifact_sha256=manifest.artifact.identity,
        artifact_bytes=manifest.artifact.total_bytes,
        keep=manifest.sparsity.keep,
        runtime=loaded.info,
        cold_start=cold_start,
        max_logit_error=error,
        latencies=latencies,
        speedup={latency.protocol: base[latency.protocol] / latency.p50_ns for latency in latencies},
        fixed_batch=manifest.input.shape[0],
        energy=energy,
        dense_kernels=format_named(manifest.artifact.format).dense_kernels,
    )


def _over_budget(contenders: Sequence[Contender], ones: Sequence[Latency], max_p90_ms: Optional[float]) -> List[str]:
    """One line for each contender whose p90 of one image is above the budget."""
    if max_p90_ms is None:
        return []
    return [
        f"{contender.label}: p90 of one image is {one.p90_ns / 1e6:.3f} ms, the budget {max_p90_ms:g} ms"
        + (" (and the machine was unstable)" if one.unstable else "")
        for contender, one in zip(contenders, ones)
        if not contender.baseline_only and one.p90_ns > max_p90_ms * 1e6
    ]
