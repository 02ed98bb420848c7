"""Joules from the counters of Linux: RAPL on PCs and servers, INA3221 power monitors on Jetsons.

A counter includes everything that it covers: other processes and idle power, too.
"""

from __future__ import annotations

import abc
import dataclasses
import threading
import time
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple, Union

from robust_edge_runtimes.bench.protocols import repeat

SYS = Path("/sys")
INPUT_RAILS = ("VDD_IN", "POM_5V_IN")  # power of the whole board; without one of them, all rails are summed
UNUSED = "NC"  # label of a channel that is not connected
PERIOD_S = 0.02


@dataclasses.dataclass(frozen=True)
class EnergySource:
    """The name of the energy counter; None with a reason if the energy was not measured."""

    counter: Optional[str]
    reason: Optional[str]


class Meter(abc.ABC):
    """Measures the joules that are used while a function runs."""

    name: str
    whole_board: bool

    @abc.abstractmethod
    def joules(self, work: Callable[[], None]) -> float:
        """Run `work` and return the joules used meanwhile.

        Raises:
            OSError, ValueError: the counter could not be read.
        """


class RaplMeter(Meter):
    """CPU packages in /sys/class/powercap. A counter may wrap around once during a measurement."""

    whole_board = False

    def __init__(self, zones: List[Path]) -> None:
        self._zones = zones
        self.name = "RAPL " + " + ".join(_read_text(zone / "name") for zone in zones)

    def joules(self, work: Callable[[], None]) -> float:
        """Sum of the differences of all counters."""
        before = [_read_float(zone / "energy_uj") for zone in self._zones]
        work()
        after = [_read_float(zone / "energy_uj") for zone in self._zones]
        ranges = [_read_float(zone / "max_energy_range_uj") for zone in self._zones]
        return sum((y - x) if y >= x else (y - x + top) for x, y, top in zip(before, after, ranges)) / 1e6


class Ina3221Meter(Meter):
    """Power monitors of a Jetson. A thread reads them every 20 ms; the trapezoidal rule integrates the power.

    Args:
        rails: name of a rail to a function that reads its power in watts.
    """

    whole_board = True

    def __init__(self, rails: Dict[str, Callable[[], float]]) -> None:
        whole = [name for name in INPUT_RAILS if name in rails]
        chosen = whole[:1] or sorted(rails)
        self._rails = [rails[name] for name in chosen]
        self.name = "INA3221 " + " + ".join(chosen)

    def joules(self, work: Callable[[], None]) -> float:
        """Integral of the power over the time of `work`."""
        readings = [self._reading()]
        done = threading.Event()
        failures: List[Exception] = []

        def watch() -> None:
            try:
                while not done.wait(PERIOD_S):
                    readings.append(self._reading())
            except (OSError, ValueError) as cause:
                failures.append(cause)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            work()
        finally:
            done.set()
            thread.join()
        if failures:
            raise failures[0]
        readings.append(self._reading())
        return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in zip(readings, readings[1:]))

    def _reading(self) -> Tuple[float, float]:
        return time.perf_counter(), sum(rail() for rail in self._rails)


def find_meter(sys: Path = SYS) -> Union[Meter, str]:
    """The meter of this machine, or the reason why there is none.

    Args:
        sys: where sysfs is mounted.
    """
    rails = {**_hwmon_rails(sys), **_iio_rails(sys)}
    if rails:
        return _usable(Ina3221Meter(rails))
    zones = sorted(zone for zone in (sys / "class/powercap").glob("intel-rapl:*") if _is_package(zone))
    if zones:
        return _usable(RaplMeter(zones))
    return f"no RAPL package in {sys}/class/powercap and no INA3221 in {sys}/class/hwmon"


def joules_per_call(
    meter: Union[Meter, str], call: Callable[[], None], device: str, seconds: float
) -> Tuple[Optional[float], EnergySource]:
    """Average joules per call over `seconds`, and the counter; None where there is no counter.

    Args:
        meter: the result of `find_meter`.
        call: the function to repeat.
        device: the device that computes, as in RuntimeInfo.
        seconds: least time of the measurement.
    """
    if isinstance(meter, str):
        return None, EnergySource(None, meter)
    if device != "cpu" and not meter.whole_board:
        return None, EnergySource(None, f"{meter.name} does not count {device}")
    counts: List[int] = []
    try:
        joules = meter.joules(lambda: counts.append(repeat(call, seconds)))
    except (OSError, ValueError) as cause:
        return None, EnergySource(None, f"{meter.name} could not be read: {cause}")
    if not joules > 0:
        return None, EnergySource(None, f"{meter.name} did not change in {seconds:g} s; measure for longer")
    return joules / counts[0], EnergySource(meter.name, None)


def _usable(meter: Meter) -> Union[Meter, str]:
    """The meter, or the reason why it cannot be read."""
    try:
        meter.joules(lambda: None)
    except PermissionError as cause:
        return f"{cause.filename} is readable by root only: sudo chmod a+r {cause.filename}"
    except (OSError, ValueError) as cause:
        return f"{meter.name} cannot be read: {cause}"
    return meter


def _is_package(zone: Path) -> bool:
    try:
        return _read_text(zone / "name").startswith("package")
    except OSError:
        return False


def _hwmon_rails(sys: Path) -> Dict[str, Callable[[], float]]:
    """JetPack 5 and newer: millivolts and milliamperes of each channel."""
    found: Dict[str, Callable[[], float]] = {}
    for chip in sorted((sys / "class/hwmon").glob("hwmon*")):
        if not (chip / "name").is_file() or _read_text(chip / "name") != "ina3221":
            continue
        for label in sorted(chip.glob("in*_label")):
            channel = label.name[len("in") : -len("_label")]
            volts, amperes = chip / f"in{channel}_input", chip / f"curr{channel}_input"
            if volts.is_file() and amperes.is_file() and _read_text(label) != UNUSED:
                found[_read_text(label)] = _product(volts, amperes)
    return found


def _iio_rails(sys: Path) -> Dict[str, Callable[[], float]]:
    """JetPack 4: milliwatts of each rail."""
    found: Dict[str, Callable[[], float]] = {}
    for label in sorted((sys / "bus/i2c/drivers/ina3221x").glob("*/iio:device*/rail_name_*")):
        power = label.with_name(f"in_power{label.name[len('rail_name_') :]}_input")
        if power.is_file():
            found[_read_text(label)] = _milliwatts(power)
    return found


def _product(volts: Path, amperes: Path) -> Callable[[], float]:
    return lambda: _read_float(volts) * _read_float(amperes) / 1e6


def _milliwatts(power: Path) -> Callable[[], float]:
    return lambda: _read_float(power) / 1e3


def _read_float(path: Path) -> float:
    return float(_read_text(path))


def _read_text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip()
