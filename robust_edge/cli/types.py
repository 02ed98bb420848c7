"""Values that a command line takes in the field's own notation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from robust_edge.attacks.table import ATTACKS, OWN
from robust_edge.settings.ranges import parse_fraction
from robust_edge_runtimes.core.errors import unknown_name

PATH = click.Path(path_type=Path)
SEED = click.IntRange(min=0, max=2**63 - 1)  # what torch and numpy both take

if TYPE_CHECKING:  # generic only in newer versions of click
    FloatType = click.ParamType[float]
    NameType = click.ParamType[str]
else:
    FloatType = NameType = click.ParamType


class AttackName(NameType):
    """A row of the table of attacks, or a class of the user's as `package.module:Class`."""

    name = "attack"

    def __init__(self, without: tuple[str, ...] = ()) -> None:
        self._names = [name for name in ATTACKS if name not in without]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the name; a class is imported when the command runs."""
        if ":" not in value and value not in self._names:
            self.fail(str(unknown_name("attack", value, [*self._names, OWN])), param, ctx)
        return str(value)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The choices."""
        return f"[{'|'.join([*self._names, OWN])}]"


class Radius(FloatType):
    """An ε in pixel units on [0, 1], as 0.03 or as 8/255."""

    name = "eps"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse and check the range."""
        try:
            radius = parse_fraction(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a radius; write it as 8/255 or 0.03", param, ctx)
        problem = self.check(radius)
        if problem is not None:
            self.fail(f"{value} {problem}", param, ctx)
        return radius

    def check(self, radius: float) -> str | None:
        """What is wrong with a number."""
        inside = math.isfinite(radius) and 0 <= radius <= 1
        return None if inside else "is outside [0, 1], the range of pixels; 8/255 is a usual radius"


class AnyRadius(Radius):
    """An ε above 0 of any norm, as 0.5 or 8/255; whether it fits the norm is the evaluation's question."""

    def check(self, radius: float) -> str | None:
        """What is wrong with a number."""
        inside = math.isfinite(radius) and radius > 0
        return None if inside else "is not above 0; a radius of 0 is no attack, 8/255 is a usual one"


class Keep(FloatType):
    """The fraction of prunable weights that stay."""

    name = "fraction"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse and check the range."""
        try:
            keep = float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number; 10% of the weights is 0.1", param, ctx)
        if not 0 < keep <= 1:
            self.fail(f"{value} is not above 0 and at most 1; 10% of the weights is 0.1", param, ctx)
        return keep
