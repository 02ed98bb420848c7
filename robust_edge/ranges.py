"""Refusing a setting that lies outside its range."""

from __future__ import annotations

from typing import Any

from robust_edge_runtimes.errors import InputError


def require(holds: bool, name: str, value: Any, allowed: str) -> None:
    """Raise an InputError that names the setting, what it may be, and what it is."""
    if not holds:
        raise InputError(f"{name} must be {allowed}; it is {value}")
