"""Joules from the counters that Linux shows: RAPL on PCs and servers, INA3221 power monitors on Jetsons.

Everything that a counter covers is counted, whoever uses it, idle power included.
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
INPUT_RAILS = ("VDD_IN", "POM_5V_IN")  # what the whole board draws; without one, all rails are added up
UNUSED = "NC"
PERIOD_S = 0.02


@dataclasses.dataclass(frozen=True)
class EnergySource:
    """What counted the joules; or None, and why nothing did."""

    counter: Optional[str]
    reason: Optional[str]


class Meter(abc.ABC):
    """Joules that go by while something runs."""

    name: str
    whole_board: bool

    @abc.abstractmethod
    def joules(self, work: Callable[[], None]) -> float:
        """Run `work` and return the joules of that time.

        Raises:
            OSError, ValueError: the counter could not be read.
        """


class RaplMeter(Meter):
    """CPU packages in /sys/class/powercap; a counter that wraps around is read as one that did so once."""

    whole_board = False

    def __init__(self, zones: List[Path]) -> None:
        self._zones = zones
        self.name = "RAPL " + " + ".join(_text(zone / "name") for zone in zones)

    def joules(self, work: Callable[[], None]) -> float:
        """Difference of the counters, all packages together."""
        before = [_number(zone / "energy_uj") for zone in self._zones]
        work()
        after = [_number(zone / "energy_uj") for zone in self._zones]
        ranges = [_number(zone / "max_energy_range_uj") for zone in self._zones]
        return sum((y - x) if y >= x else (y - x + top) for x, y, top in zip(before, after, ranges)) / 1e6


class Ina3221Meter(Meter):
    """A Jetson's power monitors, read every 20 ms by a thread; power is integrated by trapezoids.

    Args:
        rails: name to a function that reads its power in watts.
    """

    whole_board = True

    def __init__(self, rails: Dict[str, Callable[[], float]]) -> None:
        whole = [name for name in INPUT_RAILS if name in rails]
        chosen = whole[:1] or sorted(rails)
        self._rails = [rails[name] for name in chosen]
        self.name = "INA3221 " + " + ".join(chosen)

    def joules(self, work: Callable[[], None]) -> float:
        """Integral of the power."""
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
        return _tried(Ina3221Meter(rails))
    zones = sorted(zone for zone in (sys / "class/powercap").glob("intel-rapl:*") if _is_package(zone))
    if zones:
        return _tried(RaplMeter(zones))
    return f"no RAPL package in {sys}/class/powercap and no INA3221 in {sys}/class/hwmon"


def joules_per_call(
    meter: Union[Meter, str], call: Callable[[], None], device: str, seconds: float
) -> Tuple[Optional[float], EnergySource]:
    """Joules that go by during one call, on average over `seconds`; None where nothing can say.

    Args:
        meter: what `find_meter` returned.
        call: what to repeat.
        device: where it computes, as in RuntimeInfo.
        seconds: least time.
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
        return None, EnergySource(None, f"{meter.name} did not move in {seconds:g} s; measure for longer")
    return joules / counts[0], EnergySource(meter.name, None)


def _tried(meter: Meter) -> Union[Meter, str]:
    try:
        meter.joules(lambda: None)
    except PermissionError as cause:
        return f"{cause.filename} may be read by root only: sudo chmod a+r {cause.filename}"
    except (OSError, ValueError) as cause:
        return f"{meter.name} cannot be read: {cause}"
    return meter


def _is_package(zone: Path) -> bool:
    try:
        return _text(zone / "name").startswith("package")
    except OSError:
        return False


def _hwmon_rails(sys: Path) -> Dict[str, Callable[[], float]]:
    """JetPack 5 and newer: millivolts and milliamperes by channel."""
    found: Dict[str, Callable[[], float]] = {}
    for chip in sorted((sys / "class/hwmon").glob("hwmon*")):
        if not (chip / "name").is_file() or _text(chip / "name") != "ina3221":
            continue
        for label in sorted(chip.glob("in*_label")):
            channel = label.name[len("in") : -len("_label")]
            volts, amperes = chip / f"in{channel}_input", chip / f"curr{channel}_input"
            if volts.is_file() and amperes.is_file() and _text(label) != UNUSED:
                found[_text(label)] = _product(volts, amperes)
    return found


def _iio_rails(sys: Path) -> Dict[str, Callable[[], float]]:
    """JetPack 4: milliwatts by rail."""
    found: Dict[str, Callable[[], float]] = {}
    for label in sorted((sys / "bus/i2c/drivers/ina3221x").glob("*/iio:device*/rail_name_*")):
        power = label.with_name(f"in_power{label.name[len('rail_name_') :]}_input")
        if power.is_file():
            found[_text(label)] = _milliwatts(power)
    return found


def _product(volts: Path, amperes: Path) -> Callable[[], float]:
    return lambda: _number(volts) * _number(amperes) / 1e6


def _milliwatts(power: Path) -> Callable[[], float]:
    return lambda: _number(power) / 1e3


def _number(path: Path) -> float:
    return float(_text(path))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").strip()
