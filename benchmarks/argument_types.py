"""Types of command-line arguments, checked before the work."""

from __future__ import annotations

import argparse
import contextlib
import math


def fraction(text: str) -> float:
    """A number above 0, 1 at most."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"'{text}' is no fraction: above 0, 1 at most, as 0.1 for 10%")


def seconds(text: str) -> float:
    """A time that ends."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds above 0")


def at_least_one(text: str) -> int:
    """A whole number from 1 on."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1 on")
