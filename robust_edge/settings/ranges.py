"""Parse numbers in settings, and check that they are in their range."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from robust_edge_runtimes.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class Interval:
    """A range of numbers.

    Attributes:
        low: lower bound.
        high: upper bound; infinite for none.
        open_low: whether `low` itself lies outside.
        open_high: the same of `high`.
    """

    low: float
    high: float
    open_low: bool
    open_high: bool

    @classmethod
    def parse(cls, text: str) -> Interval:
        """Parse mathematical notation, for example (0, 1] or [1, inf)."""
        low, high = (math.inf if bound == "inf" else _number(bound) for bound in text[1:-1].split(", "))
        return cls(low, high, text[0] == "(", text[-1] == ")")

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        return f"{'[('[self.open_low]}{self.low}, {self.high}{'])'[self.open_high]}"

    @property
    def words(self) -> str:
        """The range in words, for an error message."""
        if not self.open_low and not self.open_high:
            return f"{self.low} to {self.high}"
        low = f"{'above' if self.open_low else 'at least'} {self.low}"
        return low if math.isinf(self.high) else f"{low}, {'below' if self.open_high else 'at most'} {self.high}"


def require(holds: bool, name: str, value: Any, allowed: str) -> None:
    """Raise InputError with the name, the allowed values and the value of a setting unless `holds`."""
    if not holds:
        raise InputError(f"{name} must be {allowed}; it is {value}")


def parse_fraction(text: str) -> float:
    """Parse a number written as 0.03 or as 8/255.

    Raises:
        ValueError: the text is not such a number, or divides by zero.
    """
    numerator, slash, denominator = text.partition("/")
    try:
        return float(numerator) / float(denominator) if slash else float(numerator)
    except ZeroDivisionError as cause:
        raise ValueError(f"{text} divides by zero") from cause


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)
