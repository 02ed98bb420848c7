"""Latencies as text."""

from __future__ import annotations

from typing import List

from robust_edge_runtimes.bench.protocols import N_IMAGES, ONE_IMAGE
from robust_edge_runtimes.bench.results import Bench, Entry, Latency
from robust_edge_runtimes.present.tables import percent, table


def bench_table(result: Bench) -> str:
    """One row per bundle and protocol, then cold starts, the machine, warnings and the latency budget."""
    rows = [_latency_row(entry, latency) for entry in result.entries for latency in entry.latencies]
    header = ["bundle", "images", "min", "p50", "p90", "p99", "mean", "images/s", "speed-up", "n"]
    if _has_energy(result):
        header.append("mJ/image")
        rows = [[*row, cell] for row, cell in zip(rows, _energy_cells(result))]
    starts = [
        [
            entry.label,
            f"{entry.cold_start.load_ns / 1e6:.0f}",
            f"{entry.cold_start.first_ns / 1e6:.1f}",
            f"{entry.cold_start.peak_rss_bytes / 2**20:.0f}",
            f"{entry.artifact_bytes / 1e3:.0f}",
            f"{100 * entry.keep:.1f}%",
        ]
        for entry in result.entries
    ]
    start_header = ["bundle", "load ms", "first ms", "peak RSS MiB", "artifact kB", "kept"]
    machine = result.machine
    return "\n".join(
        [
            table(header, rows),
            "",
            table(start_header, starts),
            f"times in ms; speed-up against {result.baseline!r}; {result.threads} thread(s) on {machine.cpu}"
            + (f", governor {machine.governor}" if machine.governor else ""),
            *_remarks(result),
            *_warnings(result),
            *_budget_lines(result),
        ]
    )


def _latency_row(entry: Entry, latency: Latency) -> List[str]:
    times = (latency.min_ns, latency.p50_ns, latency.p90_ns, latency.p99_ns, latency.mean_ns)
    return [
        entry.label,
        str(latency.images) if latency.protocol == N_IMAGES else "1",
        *(f"{value / 1e6:.3f}" for value in times),
        f"{latency.throughput:.0f}",
        f"{entry.speedup[latency.protocol]:.2f}x",
        f"{latency.n}{'!' if latency.unstable else ''}",
    ]


def _has_energy(result: Bench) -> bool:
    return any(latency.joules_per_image is not None for entry in result.entries for latency in entry.latencies)


def _energy_cells(result: Bench) -> List[str]:
    found = [latency.joules_per_image for entry in result.entries for latency in entry.latencies]
    return ["-" if joules is None else f"{1e3 * joules:.3g}" for joules in found]


def _remarks(result: Bench) -> List[str]:
    """What the times and joules include."""
    lines = []
    if result.harness is not None:
        harness = result.harness
        lines.append(
            f"measurement overhead: {harness.call_ns / 1e3:.2f} us per call, {percent(harness.share)} of the median of "
            f"{harness.fastest!r}"
            + (", too much to compare bundles that are this fast" if harness.heavy else "")
            + f"; infer() takes {harness.check_ns / 1e3:.0f} us more to check an image"
        )
    lines += [
        f"{entry.label} has a fixed batch: every call computes {entry.fixed_batch} images, even for one image"
        for entry in result.entries
        if entry.fixed_batch not in (None, 1)
    ]
    sources = {entry.energy for entry in result.entries if entry.energy is not None}
    counters = sorted({source.counter for source in sources if source.counter})
    reasons = sorted({source.reason for source in sources if source.reason})
    lines += [f"energy: everything that {counter} measures, idle power included" for counter in counters]
    return lines + [f"energy not measured: {reason}" for reason in reasons]


def _budget_lines(result: Bench) -> List[str]:
    if result.max_p90_ms is None:
        return []
    lines = [f"FAILED {line}" for line in result.over_budget]
    return lines or [f"PASS  p90 of one image within {result.max_p90_ms:g} ms"]


def _warnings(result: Bench) -> List[str]:
    return [
        f"unstable! {entry.label}, {'one image' if latency.protocol == ONE_IMAGE else 'n images'}: the medians of the "
        f"slices differ by {100 * latency.spread:.0f}%; repeat on an idle machine"
        for entry in result.entries
        for latency in entry.latencies
        if latency.unstable
    ]
