"""Latencies of several devices side by side, from the bench results of each.

Source: Marshall 2020, the data of figures 4.7, 4.8, D.1 and D.2. We use medians instead of means, since a single
interruption by the operating system changes a mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from robust_edge.reporting.collect import BenchData, clean_text
from robust_edge.reporting.robustness import Table
from robust_edge_runtimes.bench.protocols import N_IMAGES, ONE_IMAGE
from robust_edge_runtimes.bench.results import Bench, Entry, Latency

MAX_RATIO = (
    5.0  # a device that is this many times slower than the fastest of a panel gets another panel, as in figure 4.8
)


@dataclasses.dataclass(frozen=True)
class DeviceTimings:
    """The bench entries of one device; entries with equal labels have one colour."""

    device: str
    entries: tuple[Entry, ...]

    def latency(self, label: str, protocol: str, images: int) -> Latency | None:
        """The latency of a label; None if it was not measured."""
        found = (item for entry in self.entries if entry.label == label for item in entry.latencies)
        return next((item for item in found if (item.protocol, item.images) == (protocol, images)), None)

    def slowest(self, protocol: str, images: int) -> float | None:
        """The largest median in nanoseconds; None if there is none."""
        found = [self.latency(entry.label, protocol, images) for entry in self.entries]
        return max((item.p50_ns for item in found if item is not None), default=None)


def by_device(benches: Sequence[BenchData]) -> list[DeviceTimings]:
    """Entries grouped by device, in the order of the files.

    If a label appears again for the same device, it is another measurement: it becomes a device of its own, with the
    name of the file.
    """
    groups: dict[str, list[Entry]] = {}
    for item in benches:
        mine: dict[str, list[Entry]] = {}
        for entry in item.bench.entries:
            mine.setdefault(device_of(item.bench, entry), []).append(entry)
        for device, entries in mine.items():
            taken = {entry.label for entry in groups.get(device, [])} & {entry.label for entry in entries}
            groups.setdefault(f"{device} ({Path(item.path).name})" if taken else device, []).extend(entries)
    return [DeviceTimings(device, tuple(entries)) for device, entries in groups.items()]


def device_of(bench: Bench, entry: Entry) -> str:
    """Board or CPU, GPU or threads, and the power mode of a Jetson."""
    machine = bench.machine
    parts = [machine.board or machine.cpu]
    if entry.runtime.device == "cpu":
        parts.append(f"CPU, {bench.threads} thread{'s' if bench.threads > 1 else ''}")
    else:
        parts.append(f"GPU {entry.runtime.device}")
    if machine.power_mode:
        parts.append(machine.power_mode)
    return clean_text(", ".join(parts))


def protocols_of(devices: Sequence[DeviceTimings]) -> list[tuple[str, int]]:
    """All protocols and numbers of images that were timed; one image comes first."""
    found = {(item.protocol, item.images) for device in devices for entry in device.entries for item in entry.latencies}
    order = (ONE_IMAGE, N_IMAGES)
    return sorted(found, key=lambda key: (order.index(key[0]) if key[0] in order else len(order), key[1]))


def called(protocol: str, images: int) -> str:
    """The name of a protocol in tables and captions."""
    return "one image" if protocol == ONE_IMAGE else f"{images} images"


def labels_of(devices: Sequence[DeviceTimings]) -> list[str]:
    """Every bundle's label, in the order of the files."""
    return list(dict.fromkeys(entry.label for device in devices for entry in device.entries))


def panels(devices: Sequence[DeviceTimings], protocol: str, images: int) -> list[list[DeviceTimings]]:
    """Devices from fast to slow, split into panels so that the bars of each panel are visible on one scale."""
    timed = [(slowest, device) for device in devices if (slowest := device.slowest(protocol, images)) is not None]
    found: list[list[DeviceTimings]] = []
    floor = 0.0
    for slowest, device in sorted(timed, key=lambda pair: pair[0]):
        if not found or slowest > MAX_RATIO * floor:
            found.append([])
            floor = slowest
        found[-1].append(device)
    return found


def latency_tables(devices: Sequence[DeviceTimings]) -> list[Table]:
    """One table per protocol, one row per bar."""
    header = ("device", "network", "p50 ms", "p90 ms", "mean ms", "images/s", "mJ/image", "remarks")
    tables = []
    for protocol, images in protocols_of(devices):
        rows = [
            _row(device.device, entry, item)
            for device in devices
            for entry in device.entries
            for item in entry.latencies
            if (item.protocol, item.images) == (protocol, images)
        ]
        figures = "4.7 and 4.8" if protocol == ONE_IMAGE else "D.1 and D.2"
        what = called(protocol, images)
        tables.append(
            Table(
                f"latency-{what.replace(' ', '-')}",
                f"Latency of {what} by device (figures {figures})",
                header,
                tuple(rows),
            )
        )
    return tables


def _row(device: str, entry: Entry, item: Latency) -> tuple[str | None, ...]:
    remarks = [f"batch of {entry.fixed_batch}"] if entry.fixed_batch not in (None, 1) else []
    remarks += [f"unstable, {100 * item.spread:.0f}%"] if item.unstable else []
    joules = item.joules_per_image
    return (
        device,
        entry.label,
        *(f"{value / 1e6:.3f}" for value in (item.p50_ns, item.p90_ns, item.mean_ns)),
        f"{item.throughput:.1f}",
        None if joules is None else f"{1e3 * joules:.3g}",
        "; ".join(remarks) or None,
    )
