"""Numbers as text: points, radii, durations, sizes."""

from __future__ import annotations

from robust_edge_runtimes.verdict.measurement import ModeResult
from robust_edge_runtimes.verdict.statistic import Drop

SHORT_HASH = 12


def points(value: float) -> str:
    """Percentage points with a sign; zero has none."""
    text = f"{abs(value):.1f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else "−") + text


def drop_interval(drop: Drop) -> str:
    """The interval of a drop, in points."""
    return f"{points(drop.low)} to {points(drop.high)}"


def radius(eps: float) -> str:
    """An ε; multiples of 1/255 up to 16 are written as a fraction."""
    levels = round(eps * 255)
    usual = 1 <= levels <= 16 and abs(eps * 255 - levels) < 1e-6
    return f"{levels}/255" if usual else f"{eps:.4g}"


def attack(mode: ModeResult) -> str:
    """The attack of a verify mode by its usual name, such as `PGD-50, ε = 0.1`."""
    return f"{mode.attack.describe(queries=mode.counts_queries)}, ε = {radius(mode.attack.eps)}"


def with_thousands(value: float) -> str:
    """A count with thin spaces between thousands."""
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def short(sha256: str) -> str:
    """The first digits of a hash."""
    return sha256[:SHORT_HASH]


def time_unit(nanoseconds: float) -> tuple[str, float]:
    """A suitable unit for a latency, and its length in nanoseconds."""
    if nanoseconds < 1e6:
        return "µs", 1e3
    return ("ms", 1e6) if nanoseconds < 1e9 else ("s", 1e9)


def duration(nanoseconds: float, length: float) -> str:
    """A latency in a unit of `length` nanoseconds, to three significant figures or better."""
    value = nanoseconds / length
    return f"{value:.0f}" if value >= 1000 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def size(count: float) -> str:
    """Bytes in kB or MB."""
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
