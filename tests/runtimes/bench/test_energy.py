"""Meters on sysfs trees that are made up here; their clock is the test's."""

from __future__ import annotations

import threading
import types

import pytest

from robust_edge_runtimes.bench import energy
from robust_edge_runtimes.bench.energy import Ina3221Meter, RaplMeter, find_meter, joules_per_call


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def zone(sys, number, name="package-0", energy_uj=0, top=1_000_000):
    folder = sys / "class/powercap" / f"intel-rapl:{number}"
    return write(folder, name=name, energy_uj=energy_uj, max_energy_range_uj=top)


def test_rapl_adds_up_the_packages_and_nothing_else(tmp_path):
    first, second = zone(tmp_path, 0, energy_uj=100), zone(tmp_path, 1, "package-1", energy_uj=7)
    core, board = zone(tmp_path, "0:0", "core", 50), zone(tmp_path, 2, "psys", 50)
    meter = find_meter(tmp_path)
    assert isinstance(meter, RaplMeter)
    assert meter.name == "RAPL package-0 + package-1"

    def work():
        for folder, value in ((first, 300_100), (second, 200_007), (core, 9e5), (board, 9e5)):
            (folder / "energy_uj").write_text(f"{int(value)}\n")

    assert meter.joules(work) == pytest.approx(0.5)


def test_a_counter_that_wraps_around_goes_on(tmp_path):
    folder = zone(tmp_path, 0, energy_uj=900_000, top=1_000_000)
    meter = find_meter(tmp_path)
    assert meter.joules(lambda: write(folder, energy_uj=150_000)) == pytest.approx(0.25)


def rails(sys, **watts):
    """JetPack 5: a chip of three channels."""
    chip = write(sys / "class/hwmon/hwmon3", name="ina3221")
    for i, (label, power) in enumerate(watts.items(), 1):
        write(chip, **{f"in{i}_label": label, f"in{i}_input": 5000, f"curr{i}_input": round(power * 200)})
    return chip


def test_the_input_of_the_board_is_measured_alone(tmp_path):
    write(tmp_path / "class/hwmon/hwmon0", name="coretemp", in1_label="VDD_IN", in1_input=1, curr1_input=1)
    rails(tmp_path, VDD_IN=10, VDD_CPU_GPU_CV=4, VDD_SOC=2)
    meter = find_meter(tmp_path)
    assert isinstance(meter, Ina3221Meter)
    assert meter.name == "INA3221 VDD_IN"
    assert [rail() for rail in meter._rails] == [pytest.approx(10)]


def test_without_an_input_all_rails_are_added_up(tmp_path):
    rails(tmp_path, VDD_GPU_SOC=3, NC=7, VDD_CPU_CV=2)
    meter = find_meter(tmp_path)
    assert meter.name == "INA3221 VDD_CPU_CV + VDD_GPU_SOC"
    assert sum(rail() for rail in meter._rails) == pytest.approx(5)


def test_jetpack_4_names_them_otherwise(tmp_path):
    chip = tmp_path / "bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    write(chip, rail_name_0="POM_5V_IN", in_power0_input=2500, rail_name_1="POM_5V_GPU", in_power1_input=300)
    meter = find_meter(tmp_path)
    assert meter.name == "INA3221 POM_5V_IN"
    assert [rail() for rail in meter._rails] == [pytest.approx(2.5)]


class Rail:
    """Power over a clock that goes on by a tenth of a second with every reading."""

    def __init__(self, monkeypatch, power):
        self.power, self.now, self.read = power, 0.0, threading.Semaphore(0)
        monkeypatch.setattr(energy, "PERIOD_S", 0.001)
        monkeypatch.setattr(energy, "time", types.SimpleNamespace(perf_counter=lambda: self.now))

    def __call__(self):
        power, self.end = self.power(self.now), self.now
        self.now += 0.1
        self.read.release()
        return power

    def joules_of(self, readings):
        """Measured while at least so many readings are taken."""
        return Ina3221Meter({"VDD_IN": self}).joules(lambda: [self.read.acquire() for _ in range(readings)])


def test_power_is_integrated_over_time(monkeypatch):
    """A ramp, for which trapezoids are exact however the readings fall."""
    rail = Rail(monkeypatch, lambda now: 2 * now)
    assert rail.joules_of(5) == pytest.approx(rail.end**2)


def test_steps_between_two_readings_are_seen(monkeypatch):
    """Ten times the power in three readings of the middle: the two ends alone would not know."""
    rail = Rail(monkeypatch, lambda now: 10.0 if 0.25 < now < 0.55 else 1.0)
    assert rail.joules_of(10) == pytest.approx(rail.end + 9 * 0.1 * 3)


def test_a_rail_that_fails_in_between_is_no_figure():
    readings = iter([1.0, 1.0])

    def rail():
        try:
            return next(readings)
        except StopIteration:
            raise OSError("the bus is gone") from None

    meter = Ina3221Meter({"VDD_IN": rail})
    joules, source = joules_per_call(meter, lambda: None, "cpu", 0.1)
    assert joules is None
    assert source.counter is None
    assert "the bus is gone" in source.reason


def test_nothing_to_read_is_a_reason(tmp_path):
    assert "no RAPL package" in find_meter(tmp_path)
    zone(tmp_path, 0, "psys")
    assert "no RAPL package" in find_meter(tmp_path)


def test_a_counter_for_root_only_says_how_to_open_it(tmp_path, monkeypatch):
    path = zone(tmp_path, 0) / "energy_uj"

    def number(asked):
        if asked == path:
            raise PermissionError(13, "Permission denied", str(path))
        return 1.0

    monkeypatch.setattr(energy, "_read_float", number)  # whoever runs the tests may be root
    assert find_meter(tmp_path) == f"{path} is readable by root only: sudo chmod a+r {path}"


def test_a_counter_that_holds_no_number_is_a_reason(tmp_path):
    zone(tmp_path, 0, energy_uj="much")
    assert "RAPL package-0 cannot be read" in find_meter(tmp_path)


def test_joules_are_divided_by_the_calls(tmp_path):
    folder = zone(tmp_path, 0, top=10**12)
    calls = []

    def call():
        calls.append(0)
        write(folder, energy_uj=2_000_000 * len(calls))

    joules, source = joules_per_call(find_meter(tmp_path), call, "cpu", 0.02)
    assert len(calls) > 1
    assert joules == pytest.approx(2)
    assert (source.counter, source.reason) == ("RAPL package-0", None)


def test_a_cpu_counter_does_not_speak_for_a_gpu_and_a_board_does(tmp_path, monkeypatch):
    folder = zone(tmp_path / "pc", 0)
    joules, source = joules_per_call(find_meter(tmp_path / "pc"), lambda: write(folder, energy_uj=5), "Orin", 0.01)
    assert (joules, source.reason) == (None, "RAPL package-0 does not count Orin")
    rails(tmp_path / "jetson", VDD_IN=10)
    monkeypatch.setattr(energy, "time", types.SimpleNamespace(perf_counter=lambda: called / 20))
    called = 0

    def call():
        nonlocal called
        called += 1

    joules, source = joules_per_call(find_meter(tmp_path / "jetson"), call, "Orin", 0.01)
    assert joules == pytest.approx(0.5)
    assert source.counter == "INA3221 VDD_IN"


def test_a_counter_that_stands_still_is_no_figure(tmp_path):
    zone(tmp_path, 0)
    joules, source = joules_per_call(find_meter(tmp_path), lambda: None, "cpu", 0.01)
    assert joules is None
    assert "did not change in 0.01 s" in source.reason
