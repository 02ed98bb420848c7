"""Latencies of several devices on one figure and in one table."""

from __future__ import annotations

import dataclasses

import pytest
from matplotlib.patches import Rectangle

from robust_edge.reporting.collect import BenchData
from robust_edge.reporting.device_figures import device_bars
from robust_edge.reporting.devices import by_device, labels_of, latency_tables, panels, protocols_of
from robust_edge.reporting.documents import comma_separated, markdown
from robust_edge.reporting.drawing import svg_uri
from robust_edge_runtimes.bench.cold_start import ColdStart
from robust_edge_runtimes.bench.protocols import N_IMAGES, ONE_IMAGE
from robust_edge_runtimes.bench.results import Bench, Entry, summarise
from robust_edge_runtimes.core.environment import Machine
from robust_edge_runtimes.core.runtime import RuntimeInfo

COLD = ColdStart(10**8, 10**6, 2**26)


def entry(label, ms, *, images=100, device="cpu", wobble=1.0, **changes):
    ns = round(ms * 1e6)
    calls = (
        summarise(ONE_IMAGE, 1, [[ns] * 2, [ns] * 2, [round(ns * wobble)]]),
        summarise(N_IMAGES, images, [[60 * ns] * 2]),
    )
    runtime = RuntimeInfo("onnxruntime", "1", device, "p", 1)
    speedup = {ONE_IMAGE: 1.0, N_IMAGES: 1.0}
    made = Entry(label, "x86-cpu", label[0] * 64, 1000, 0.1, runtime, COLD, 1e-7, calls, speedup)
    return dataclasses.replace(made, **changes)


def timed(path, cpu, *entries, threads=1, board=None, power_mode=None):
    machine = Machine(cpu, "x86_64", 2, "Linux", "3.11", "2.0", None, power_mode, "2026-01-01T00:00:00+00:00", board)
    bench = Bench(machine, threads, entries[0].label, entries)
    return BenchData(path, bench, (None,) * len(entries))


@pytest.fixture
def gathered():
    """A laptop, a Nano's CPU and GPU, and a server, of two networks that not all have."""
    return [
        timed("laptop.json", "Core i7", entry("ResNet34", 10.0), entry("MobileNetV2", 4.0)),
        timed("nano-cpu.json", "ARMv8", entry("ResNet34", 900.0), entry("MobileNetV2", 200.0), board="Jetson Nano"),
        timed("nano-gpu.json", "ARMv8", entry("ResNet34", 30.0, device="sm53x1"), board="Jetson Nano"),
        timed("server.json", "EPYC", entry("ResNet34", 8.0, wobble=1.5), threads=2, power_mode=None),
    ]


def test_each_place_is_a_group(gathered):
    assert [device.device for device in by_device(gathered)] == [
        "Core i7, CPU, 1 thread",
        "Jetson Nano, CPU, 1 thread",
        "Jetson Nano, GPU sm53x1",
        "EPYC, CPU, 2 threads",
    ]
    assert labels_of(by_device(gathered)) == ["ResNet34", "MobileNetV2"]


def test_files_of_one_device_join_and_repetitions_stand_apart(gathered):
    more = [
        timed("x/more.json", "Core i7", entry("ResNet18", 6.0)),
        timed("x/again.json", "Core i7", entry("ResNet34", 11.0)),
    ]
    found = {item.device: [x.label for x in item.entries] for item in by_device([*gathered[:1], *more])}
    assert found == {
        "Core i7, CPU, 1 thread": ["ResNet34", "MobileNetV2", "ResNet18"],
        "Core i7, CPU, 1 thread (again.json)": ["ResNet34"],
    }


def test_power_modes_are_devices_of_their_own():
    slow = timed("5w.json", "ARMv8", entry("a", 2.0), power_mode="NV Power Mode: 5W")
    fast = timed("max.json", "ARMv8", entry("a", 1.0), power_mode="NV Power Mode: MAXN")
    assert [item.device for item in by_device([slow, fast])] == [
        "ARMv8, CPU, 1 thread, NV Power Mode: 5W",
        "ARMv8, CPU, 1 thread, NV Power Mode: MAXN",
    ]


def test_a_much_slower_device_has_a_panel_of_its_own(gathered):
    found = panels(by_device(gathered), ONE_IMAGE, 1)
    assert [[device.device.split(",")[0] for device in panel] for panel in found] == [
        ["EPYC", "Core i7", "Jetson Nano"],
        ["Jetson Nano"],
    ]


def bars(figure):
    """(panel, x, height, colour, hatch) of every bar."""
    return [
        (i, bar.get_x() + bar.get_width() / 2, bar.get_height(), bar.get_facecolor(), bar.get_hatch())
        for i, axes in enumerate(figure.axes)
        for bar in axes.patches
        if isinstance(bar, Rectangle)
    ]


def test_every_measurement_is_one_bar_of_its_height_colour_and_group(gathered):
    figure = device_bars(by_device(gathered), ONE_IMAGE, 1)
    drawn = bars(figure)
    # panel 0: EPYC, Core i7, Nano's GPU; panel 1: Nano's CPU
    assert sorted((panel, round(x), round(height, 6)) for panel, x, height, _, _ in drawn) == [
        (0, 0, 8.0),
        (0, 1, 4.0),
        (0, 1, 10.0),
        (0, 2, 30.0),
        (1, 0, 200.0),
        (1, 0, 900.0),
    ]
    resnet = {colour for _, _, height, colour, _ in drawn if height in (8.0, 10.0, 30.0, 900.0)}
    mobilenet = {colour for _, _, height, colour, _ in drawn if height in (4.0, 200.0)}
    assert len(resnet) == len(mobilenet) == 1
    assert resnet != mobilenet
    assert [height for *_, height, _, hatch in drawn if hatch] == [8.0]  # unstable
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["ResNet34", "MobileNetV2"]
    assert svg_uri(figure).startswith("data:image/svg+xml")


def test_different_n_are_not_mixed(gathered):
    fewer = timed("few.json", "i3", entry("ResNet34", 20.0, images=50))
    devices = by_device([*gathered[:1], fewer])
    assert protocols_of(devices) == [(ONE_IMAGE, 1), (N_IMAGES, 50), (N_IMAGES, 100)]
    assert len(bars(device_bars(devices, N_IMAGES, 50))) == 1
    assert len(bars(device_bars(devices, N_IMAGES, 100))) == 2
    keys = [table.key for table in latency_tables(devices)]
    assert keys == ["latency-one-image", "latency-50-images", "latency-100-images"]


def test_names_are_drawn_as_they_are():
    odd = timed("a.json", "_$x^$ " * 20, entry("_hidden", 1.0), entry("$y$", 2.0))
    other = timed("b.json", "plain", entry("_hidden", 1.0))
    figure = device_bars(by_device([odd, other]), ONE_IMAGE, 1)
    svg_uri(figure)
    (legend,) = figure.legends
    assert [text.get_text().strip() for text in legend.get_texts()] == ["_hidden", "$y$"]


def test_the_table_holds_every_bar_with_its_energy_and_remarks(gathered):
    metered = entry("ResNet34", 10.0, fixed_batch=8)
    one = dataclasses.replace(metered.latencies[0], joules_per_image=0.0123)
    metered = dataclasses.replace(metered, latencies=(one, metered.latencies[1]))
    tables = latency_tables(by_device([timed("laptop.json", "Core i7", metered), gathered[3]]))
    assert [row[:3] for row in tables[0].rows] == [
        ("Core i7, CPU, 1 thread", "ResNet34", "10.000"),
        ("EPYC, CPU, 2 threads", "ResNet34", "8.000"),
    ]
    assert tables[0].rows[0][-2:] == ("12.3", "batch of 8")
    assert tables[0].rows[1][-2:] == (None, "unstable, 50%")
    assert tables[1].rows[0][2] == "600.000"
    assert comma_separated(tables[0]).splitlines()[0].startswith("device,network,p50 ms")
    assert "Wilson" not in markdown(tables[0])  # there is no accuracy in it
