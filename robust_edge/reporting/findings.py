"""Derive comparisons, groups, remarks and commands from the collected data."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from robust_edge.config.settings import to_plain
from robust_edge.evaluation.accuracy import Accuracy
from robust_edge.evaluation.outcome import AttackResult
from robust_edge.reporting.collect import BenchData, Environment, Missing, ReportData, RunData, VerdictData, clean_text
from robust_edge.run.per_class import ClassAccuracy, no_better_than_constant
from robust_edge_runtimes.bench.results import Bench, Entry, Latency
from robust_edge_runtimes.core.manifest import LayerCount
from robust_edge_runtimes.verdict.measurement import ModeResult

T = TypeVar("T")
ALMOST_ALL = 0.999  # a dense network may have a few weights that are exactly zero


@dataclasses.dataclass(frozen=True, eq=False)
class LayerTable:
    """Runs whose networks have the same layers, and for each layer the counts of all runs."""

    runs: tuple[RunData, ...]
    rows: tuple[tuple[LayerCount, ...], ...]

    @property
    def pruned(self) -> tuple[RunData, ...]:
        """The runs that prune."""
        return tuple(run for run in self.runs if run.sparse)


@dataclasses.dataclass(frozen=True, eq=False)
class Timing:
    """One row of a latency table.

    Attributes:
        outcome: the worst outcome among the verdicts on the same artifact; None without a verdict.
        speedup: relative to the baseline; None for the baseline itself.
        noise: the speed-up is within the spread of the measurement.
    """

    entry: Entry
    latency: Latency
    outcome: str | None
    speedup: float | None
    noise: bool


def reference_attack(runs: Iterable[RunData]) -> AttackResult | None:
    """The result of the first evaluated robust run, else of any run; the others should be attacked in the same way."""
    evaluated = [run for run in runs if run.result is not None]
    first = min(evaluated, key=lambda run: not run.config.robust, default=None)
    return None if first is None else first.result


def class_rows(run: RunData) -> tuple[ClassAccuracy, ...]:
    """Accuracies class by class: of the evaluation that the summary shows, or of the end of the run."""
    if run.result is not None and run.result.per_class:
        return run.result.per_class
    return () if run.checkpoint is None else run.checkpoint.per_class


def cautions(run: RunData) -> list[str]:
    """Notes on the images and the network of a run, and a warning if a constant answer is as good."""
    if run.checkpoint is None:
        return []
    rows = () if run.result is None else run.result.per_class
    constant = no_better_than_constant(rows, run.checkpoint.no_better) if rows else ()
    notes = [note for note in run.checkpoint.notes if not constant or note not in run.checkpoint.warnings]
    return [*notes, *constant]


def attacks_differ(runs: Iterable[RunData]) -> bool:
    """Whether the robust accuracies were measured under different attacks, and cannot be compared."""
    results = [run.result for run in runs if run.result is not None]
    attacks = [(result.threat, [stage.settings for stage in result.stages]) for result in results]
    return any(attack != attacks[0] for attack in attacks)


def curve_attacks(runs: Iterable[RunData]) -> list[str]:
    """The names of the attacks at increasing radii, for example `PGD-100`."""
    curves = [run.curve for run in runs if run.curve is not None]
    return list(dict.fromkeys(curve.title or f"PGD-{curve.steps}" for curve in curves))  # older records have no title


def layer_tables(runs: Iterable[RunData]) -> list[LayerTable]:
    """Finished runs, grouped by the layers of their networks."""
    groups: dict[tuple[tuple[str, int], ...], list[RunData]] = {}
    for run in runs:
        if run.checkpoint is not None:
            layers = tuple((layer.name, layer.weights) for layer in run.checkpoint.sparsity.layers)
            groups.setdefault(layers, []).append(run)
    return [
        LayerTable(
            tuple(group), tuple(zip(*(run.checkpoint.sparsity.layers for run in group if run.checkpoint), strict=True))
        )
        for group in groups.values()
    ]


def curve_rows(runs: Sequence[RunData]) -> list[tuple[float, list[Accuracy | None]]]:
    """Every ε of any curve with the accuracy of each run; None where a curve has no such ε or ended before."""
    found = [{point.eps: point.accuracy for point in run.curve.points} if run.curve else {} for run in runs]
    return [(eps, [points.get(eps) for points in found]) for eps in sorted({eps for points in found for eps in points})]


def hardest_mode(item: VerdictData) -> ModeResult | None:
    """The mode in which the artifact has the lowest robust accuracy."""
    return min(item.verdict.modes, key=lambda mode: mode.artifact_robust, default=None)


def timings(item: BenchData, protocol: str) -> list[Timing]:
    """One row per bundle."""
    rows = [
        (entry, latency, outcome)
        for entry, outcome in zip(item.bench.entries, item.outcomes, strict=True)
        for latency in entry.latencies
        if latency.protocol == protocol
    ]
    base = next((latency for entry, latency, _ in rows if entry.label == item.bench.baseline), None)
    return [_timing(entry, latency, outcome, base) for entry, latency, outcome in rows]


def _timing(entry: Entry, latency: Latency, outcome: str | None, base: Latency | None) -> Timing:
    factor = entry.speedup.get(latency.protocol)
    if base is None or latency is base or factor is None:
        return Timing(entry, latency, outcome, None, noise=False)
    return Timing(entry, latency, outcome, factor, noise=abs(factor - 1) <= max(latency.spread, base.spread))


def timing_of(data: ReportData, item: VerdictData, protocol: str) -> Timing | None:
    """The latency of the artifact of a verdict; None if it was not timed."""
    rows = (row for bench in data.benches for row in timings(bench, protocol))
    return next((row for row in rows if row.entry.artifact_sha256 == item.verdict.artifact_sha256), None)


def baseline_is_dense(bench: Bench) -> bool:
    """Whether the baseline is dense; `robust-edge-device bench` may have had no dense bundle."""
    return any(entry.keep > ALMOST_ALL for entry in bench.entries if entry.label == bench.baseline)


def energy_lines(bench: Bench) -> list[str]:
    """The joules of every bundle, or the reasons why there are none."""
    lines = []
    for entry in bench.entries:
        for item in entry.latencies:
            if item.joules_per_image is not None and entry.energy is not None:
                images = "one image" if item.images == 1 else f"each of {item.images} images"
                joules = f"{1e3 * item.joules_per_image:.3g} mJ for {images}"
                lines.append(f"{entry.label}: {joules}, all that {entry.energy.counter} covers, idle power included")
    reasons = {entry.energy.reason for entry in bench.entries if entry.energy is not None and entry.energy.reason}
    return lines + [f"Energy was not measured: {reason}" for reason in sorted(reasons)]


def unstable(bench: Bench) -> list[tuple[str, Latency]]:
    """Labels and latencies of unstable measurements."""
    return [(entry.label, item) for entry in bench.entries for item in entry.latencies if item.unstable]


def no_verdict(data: ReportData, out: Path) -> Missing:
    """The commands that export and verify the sparsest finished robust run."""
    finished = [run for run in data.runs if run.checkpoint is not None]
    candidates = sorted(finished, key=lambda run: (not run.config.robust, run.config.pruning.keep))
    why = "no verdict was given to this page, so nothing is known about an exported file under attack"
    if not candidates:
        return Missing(f"{why}; first finish a run", ())
    chosen = candidates[0]
    bundle = shlex.quote(f"bundles/{Path(chosen.name).name}")
    return Missing(
        why,
        (
            f"robust-edge export {chosen.shell_path} --target x86-cpu -o {bundle}",
            f"robust-edge verify {bundle} --against {chosen.shell_path} -o verify.json",
            report_command(data, out, "--verify verify.json"),
        ),
    )


def no_bench(data: ReportData, out: Path) -> Missing:
    """The commands that time all finished runs; dense ones come first, so that one of them is the baseline."""
    finished = sorted((run for run in data.runs if run.checkpoint is not None), key=lambda run: run.sparse)
    why = "no bench result was given to this page, so nothing is known about speed"
    if not finished:
        return Missing(f"{why}; first finish a run", ())
    bundles = {run.index: shlex.quote(f"bundles/{Path(run.name).name}") for run in finished}
    exports = [f"robust-edge export {run.shell_path} --target x86-cpu -o {bundles[run.index]}" for run in finished]
    return Missing(
        why,
        (
            *exports,
            f"robust-edge bench {' '.join(bundles.values())} -o bench.json",
            report_command(data, out, "--bench bench.json"),
        ),
    )


def report_command(data: ReportData, out: Path, *more: str) -> str:
    """The command that writes this report, with `more` options."""
    runs = " ".join(run.shell_path for run in data.runs)
    verdicts = [f"--verify {shlex.quote(item.path)}" for item in data.verdicts]
    benches = [f"--bench {shlex.quote(item.path)}" for item in data.benches]
    transfers = [f"--transfer {shlex.quote(path)}" for path in data.transfer_paths]
    page = shlex.quote(clean_text(str(out)))
    return " ".join(["robust-edge report", runs, *verdicts, *benches, *transfers, *more, "-o", page])


def reproduce_commands(run: RunData) -> list[str]:
    """The commands that train the same network again, or import it, and print its hash for comparison."""
    again = clean_text(f"{run.run.path}-again")
    made = ["compress", "--config", str(run.run.path / "config.yaml")]
    if run.imported is not None:
        made = ["import", run.imported.file, *run.imported.options]
    command = clean_text(shlex.join(["robust-edge", *made, "-o", again]))
    return [command, f"sha256sum {shlex.quote(again)}/checkpoint.safetensors"]


def differing_settings(runs: Sequence[RunData]) -> list[tuple[str, list[str]]]:
    """Settings in which the runs differ, with the value of each run."""
    flat = [dict(_flatten(to_plain(run.config))) for run in runs]
    keys = dict.fromkeys(key for config in flat for key in config)  # schemes have different settings
    found = [(key, [config.get(key, "-") for config in flat]) for key in keys]
    return [(key, values) for key, values in found if len(set(values)) > 1]


def versions(runs: Sequence[RunData]) -> list[tuple[str, dict[str, str] | None]]:
    """Groups of runs that were written with the same software: their names, and the versions."""
    return _grouped(runs, [run.environment.versions if run.environment else None for run in runs])


def machines(runs: Sequence[RunData]) -> list[tuple[str, Environment | None]]:
    """Groups of runs that were written on the same machine: their names, and the machine."""
    return _grouped(runs, [run.environment for run in runs])


def _grouped(runs: Sequence[RunData], values: Sequence[T]) -> list[tuple[str, T]]:
    groups: list[tuple[list[str], T]] = []
    for run, value in zip(runs, values, strict=True):
        names = next((names for names, known in groups if known == value), None)
        if names is None:
            groups.append(([run.name], value))
        else:
            names.append(run.name)
    if len(groups) == 1 and len(runs) > 1:
        return [("all runs", groups[0][1])]
    return [(", ".join(names), value) for names, value in groups]


def _flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _flatten(item, f"{prefix}{key}.")
        else:
            yield prefix + key, "none" if item is None else str(list(item)) if isinstance(item, tuple) else str(item)
