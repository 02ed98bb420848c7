"""Settings as numbers: reading them, and refusing one that lies outside its range."""

from __future__ import annotations

from typing import Any

from robust_edge_runtimes.core.errors import InputError


def require(holds: bool, name: str, value: Any, allowed: str) -> None:
    """Raise an InputError that names the setting, what it may be, and what it is."""
    if not holds:
        raise InputError(f"{name} must be {allowed}; it is {value}")


def parse_fraction(text: str) -> float:
    """A number written as 0.03 or as 8/255.

    Raises:
        ValueError: it is neither, or divides by zero.
    """
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(numerator)
    except ZeroDivisionError as cause:
        raise ValueError(f"{text} divides by zero") from cause
