"""Latencies of several networks on several devices as grouped bars."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robust_edge.reporting.devices import DeviceTimings, labels_of, panels
from robust_edge.reporting.drawing import line_style, style
from robust_edge.reporting.figures import WIDTH
from robust_edge.reporting.formats import duration, time_unit

NAME, MAX_NUMBERS = 20, 28


def device_bars(devices: Sequence[DeviceTimings], protocol: str, images: int) -> Figure:
    """Median latencies: one group of bars per device, one colour per network.

    Source: Marshall 2020, figures 4.7 and D.1. Devices that are much slower have a panel with an axis of its own;
    the thesis shows them in figures 4.8 and D.2.

    Args:
        devices: at least one has a latency of that protocol and number of images.
    """
    groups = panels(devices, protocol, images)
    labels = labels_of(devices)
    with style():
        figure = Figure((WIDTH, 3.8))
        widths = [len(group) for group in groups]
        axes = figure.subplots(1, len(groups), squeeze=False, gridspec_kw={"width_ratios": widths, "wspace": 0.3})[0]
        for panel, group in zip(axes, groups, strict=True):
            _panel(panel, group, labels, protocol, images)
        handles = {label: bar for panel in axes for bar, label in zip(*panel.get_legend_handles_labels(), strict=True)}
        shown = [label for label in labels if _legend(label) in handles]
        figure.legend(
            [handles[_legend(label)] for label in shown],
            [_legend(label) for label in shown],
            loc="lower center",
            bbox_to_anchor=(0.5, 0.92),
            ncols=min(4, len(shown)),
        )
    return figure


def _panel(axes: Axes, group: Sequence[DeviceTimings], labels: Sequence[str], protocol: str, images: int) -> None:
    slowest = max(device.slowest(protocol, images) or 0.0 for device in group)
    unit, length = time_unit(slowest)
    width = 0.84 / len(labels)
    numbers = sum(len(device.entries) for device in group) <= MAX_NUMBERS
    for index, label in enumerate(labels):
        place = (index - (len(labels) - 1) / 2) * width
        named = False
        for x, device in enumerate(group):
            item = device.latency(label, protocol, images)
            if item is None:
                continue
            bars = axes.bar(
                x + place,
                item.p50_ns / length,
                0.94 * width,
                color=line_style(index).colour,
                edgecolor="white",
                linewidth=0.4,
                hatch="///" if item.unstable else None,
                label=None if named else _legend(label),
            )
            named = True
            if numbers:
                axes.bar_label(bars, [duration(item.p50_ns, length)], padding=2, fontsize=7)
    axes.set_xticks(range(len(group)), [_wrapped(device.device) for device in group], fontsize=7.5)
    axes.set_xlim(-0.6, len(group) - 0.4)
    axes.set_ylim(0, 1.12 * slowest / length)
    axes.set_ylabel(f"{unit} per call, median")
    axes.grid(visible=False, axis="x")


def _legend(label: str) -> str:
    """A legend entry; matplotlib would omit one that begins with an underscore."""
    return textwrap.shorten(label, 40, placeholder="…") if not label.startswith("_") else f" {label[:39]}"


def _wrapped(device: str) -> str:
    lines = textwrap.wrap(device, NAME)
    return "\n".join([*lines[:4], "…"] if len(lines) > 5 else lines)
