"""Types of command-line options: attack names, radii and fractions; and an option of all commands that take runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from robust_edge.attacks.table import ATTACKS, OWN
from robust_edge.config.training import AttackConfig
from robust_edge.settings.options import Number
from robust_edge.settings.ranges import Interval, parse_fraction
from robust_edge.settings.setting import Setting, settings_of
from robust_edge_runtimes.cli.options import Utf8Path
from robust_edge_runtimes.core.errors import unknown_name

PATH = Utf8Path()
ALLOW_CODE = click.option(
    "--allow-code",
    is_flag=True,
    help="Import functions that the run names (my_package:build), although you have not made a run with them here.",
)
SEED = click.IntRange(min=0, max=2**63 - 1)  # what torch and numpy both take

if TYPE_CHECKING:  # generic only in newer versions of click
    NameType = click.ParamType[str]
else:
    NameType = click.ParamType


class Shape(NameType):
    """The shape of an image, written as CxHxW or C,H,W."""

    name = "shape"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse three sizes."""
        sizes = str(value).lower().replace("x", ",").split(",")
        if len(sizes) != 3 or not all(size.strip().isdecimal() and int(size) for size in sizes):
            self.fail(f"{value!r} is not a shape; write channels, height and width as 3x224x224", param, ctx)
        return tuple(map(int, sizes))


class Numbers(NameType):
    """One number or several with commas between, each written as 0.5 or as 1/255."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse them."""
        try:
            numbers = tuple(map(parse_fraction, str(value).split(",")))
        except ValueError:
            numbers = (math.nan,)
        if not all(map(math.isfinite, numbers)):
            self.fail(f"{value!r} is not a list of numbers; write it as 0.485,0.456,0.406", param, ctx)
        return numbers


class AttackName(NameType):
    """A name of the table of attacks, or the user's own class as `package.module:Class`."""

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


class Radius(Number):
    """An ε in pixel units on [0, 1], written as 0.03 or as 8/255."""

    def __init__(self) -> None:
        super().__init__(settings_of(AttackConfig)["eps"])


class AnyRadius(Number):
    """An ε above 0 in any norm, written as 0.5 or as 8/255; the evaluation checks the limit of the norm."""

    def __init__(self) -> None:
        hint = "a radius of 0 is no attack, 8/255 is a usual one"
        super().__init__(Setting(help="radius", range=Interval.parse("(0, inf)"), noun="a radius", hint=hint))
