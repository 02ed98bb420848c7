"""Results as aligned text for a terminal."""

from __future__ import annotations

from typing import List, Sequence, Union

from robust_edge_runtimes.bench.latency import Bench, Entry, Latency
from robust_edge_runtimes.bench.protocols import N_IMAGES, ONE_IMAGE
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.verdict.judge import Verdict
from robust_edge_runtimes.verdict.measurement import ModeResult, Twin, WorstCase
from robust_edge_runtimes.verdict.statistic import Drop


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """Rows under a header; the first columns, which hold `words`, to the left, the others, numbers, to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = []
    for row in (header, *rows):
        placed = list(zip(row, widths))
        cells = [cell.ljust(width) for cell, width in placed[:words]]
        cells += [cell.rjust(width) for cell, width in placed[words:]]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def verdict_table(verdict: Verdict) -> str:
    """One row per mode, then the reasons, the notes and the verdict."""
    rows = [row for mode in verdict.modes for row in _accuracies(mode.mode, attack_name(mode.attack), mode)]
    if verdict.worst is not None:
        rows += _accuracies("all modes", "worst case", verdict.worst)
    for other in verdict.elsewhere:
        rows += [row for mode in other.modes for row in _accuracies(mode.mode + " *", attack_name(mode.attack), mode)]
    header = ["mode", "accuracy", "images", "checkpoint", "artifact", "drop (95% interval) / budget, points"]
    lines = [table(header, rows)]
    for other in verdict.elsewhere:
        where = f"{other.machine.cpu}, {other.runtime.backend} {other.runtime.version}"
        lines.append(f"* measured elsewhere: {other.source} ({where})")
    lines += ["took " + ", ".join(f"{mode.mode} {mode.seconds:.1f} s" for mode in verdict.modes)] * bool(verdict.modes)
    lines += [_twin_line(mode.mode, mode.twin) for mode in verdict.modes if mode.twin is not None]
    parity = verdict.parity
    lines.append(
        f"largest logit error {parity.max_logit_error:.2g} (relative; tolerance {parity.tolerance:.2g}), "
        f"classes agree on {100 * parity.argmax_agreement:.2f}%"
    )
    lines += [f"note: {note}" for note in verdict.notes]
    lines += [f"FAILED {reason}" for reason in verdict.reasons]
    word = "PASS" if verdict.passed else "FAIL"
    runtime = verdict.runtime
    lines.append(
        f"{word}  {verdict.target} artifact {verdict.artifact_sha256[:12]} on {runtime.backend} {runtime.version}"
    )
    return "\n".join(lines)


def bench_table(result: Bench) -> str:
    """One row per bundle and protocol, then the machine."""
    rows = []
    for entry in result.entries:
        for latency in entry.latencies:
            rows.append(_latency_row(entry, latency))
    header = ["bundle", "images", "min", "p50", "p90", "p99", "mean", "images/s", "speed-up", "n"]
    if _metered(result):
        header.append("mJ/image")
        rows = [[*row, cell] for row, cell in zip(rows, _joules(result))]
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
            *_conditions(result),
            *_warnings(result),
            *_budget(result),
        ]
    )


def attack_name(attack: AttackSpec) -> str:
    """What was done to the images, with the numbers that it takes to do it again."""
    unit = "queries" if attack.name == "square" else "steps"
    return f"{attack.name} eps={attack.eps:.4g}, {attack.steps} {unit}, seed {attack.seed}"


def _accuracies(where: str, attack: str, result: Union[ModeResult, WorstCase]) -> List[List[str]]:
    stored = isinstance(result, ModeResult) and not result.paired
    return [
        [where, name, str(result.images), "stored " * stored + percent(reference), percent(artifact), _drop(drop)]
        for name, reference, artifact, drop in (
            ("clean", result.reference_clean, result.artifact_clean, result.clean_drop),
            (attack, result.reference_robust, result.artifact_robust, result.robust_drop),
        )
    ]


def _twin_line(mode: str, twin: Twin) -> str:
    return (
        f"gradients of {mode}: {twin.made_from}; logits within {twin.max_logit_error:.2g} of the artifact's "
        f"(tolerance {twin.tolerance:.2g}), temperature {twin.temperature:.3g}"
    )


def percent(fraction: float) -> str:
    """A fraction as a percentage with one decimal."""
    return f"{100 * fraction:.1f}%"


def _drop(drop: Drop) -> str:
    return f"{drop.points:+.1f} ({drop.low:+.1f} to {drop.high:+.1f}) / {drop.budget:g}"


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


def _metered(result: Bench) -> bool:
    return any(latency.joules_per_image is not None for entry in result.entries for latency in entry.latencies)


def _joules(result: Bench) -> List[str]:
    found = [latency.joules_per_image for entry in result.entries for latency in entry.latencies]
    return ["-" if joules is None else f"{1e3 * joules:.3g}" for joules in found]


def _conditions(result: Bench) -> List[str]:
    """What the figures hold and what they do not."""
    lines = []
    if result.harness is not None:
        harness = result.harness
        lines.append(
            f"{harness.call_ns / 1e3:.2f} us of every call are the harness', {percent(harness.share)} of the median of "
            f"{harness.fastest!r}"
            + (", too much to compare bundles that fast" if harness.heavy else "")
            + f"; infer() takes {harness.check_ns / 1e3:.0f} us more to check an image"
        )
    lines += [
        f"{entry.label} computes {entry.fixed_batch} images in every call, for one image as well"
        for entry in result.entries
        if entry.fixed_batch not in (None, 1)
    ]
    sources = {entry.energy for entry in result.entries if entry.energy is not None}
    counters = sorted({source.counter for source in sources if source.counter})
    reasons = sorted({source.reason for source in sources if source.reason})
    lines += [f"energy of all that {counter} covers, idle power included" for counter in counters]
    return lines + [f"energy not measured: {reason}" for reason in reasons]


def _budget(result: Bench) -> List[str]:
    if result.max_p90_ms is None:
        return []
    lines = [f"FAILED {line}" for line in result.over_budget]
    return lines or [f"PASS  p90 of one image within {result.max_p90_ms:g} ms"]


def _warnings(result: Bench) -> List[str]:
    return [
        f"unstable! {entry.label}, {'one image' if latency.protocol == ONE_IMAGE else 'n images'}: slices of the "
        f"same run differ by {100 * latency.spread:.0f}%; repeat on a quiet machine"
        for entry in result.entries
        for latency in entry.latencies
        if latency.unstable
    ]
