"""Make options of a click command from declared settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from robust_edge.settings.ranges import Interval, parse_fraction
from robust_edge.settings.setting import Setting, check_value

C = TypeVar("C", bound=Callable[..., Any])

if TYPE_CHECKING:  # generic only in newer versions of click
    FloatType = click.ParamType[float]
    TextType = click.ParamType[str]
else:
    FloatType = TextType = click.ParamType


class Number(FloatType):
    """A number written as 0.03 or as 8/255, within the range of a setting."""

    def __init__(self, declaration: Setting) -> None:
        self.declaration = declaration
        self.noun = declaration.noun or "a number"
        self.name = self.noun.rpartition(" ")[2]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse and check the range."""
        hint = f"; {self.declaration.hint}" if self.declaration.hint else ""
        try:
            number = parse_fraction(str(value))
        except ValueError:
            self.fail(f"{value!r} is not {self.noun}{hint}", param, ctx)
        allowed = self.declaration.range
        if allowed is not None and not (number in allowed and math.isfinite(number)):
            closed = not (allowed.open_low or allowed.open_high)
            problem = f"is outside {allowed}" if closed else f"is not {allowed.words}"
            self.fail(f"{value} {problem}{hint}", param, ctx)
        return number


class Name(TextType):
    """Text that is checked against the choices of a setting, if it has any."""

    name = "text"

    def __init__(self, declaration: Setting) -> None:
        self.declaration = declaration

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the value against the choices; click adds the flag to the error message."""
        check_value(self.declaration.flag, value, self.declaration)
        return str(value)


def setting_options(settings: Iterable[tuple[str, str, Setting]]) -> Callable[[C], C]:
    """A decorator that adds an option to a click command for every setting that has a flag.

    Args:
        settings: (dotted name, type as written in the dataclass, declaration) in the order of the help page.

    Returns:
        The decorator. The command receives each value as the argument `parameter_name(dotted name)`, None if not given.
        A list has a repeatable option; it is an empty tuple if not given.
    """

    def decorate(command: C) -> C:
        for key, kind, declaration in reversed(list(settings)):
            if declaration.flag:
                command = _option(key, kind, declaration)(command)
        return command

    return decorate


def parameter_name(key: str) -> str:
    """The name of the argument by which a command receives the value of a setting."""
    return key.replace(".", "_")


def _option(key: str, kind: str, declaration: Setting) -> Callable[[C], C]:
    text = f"{declaration.described[:1].upper()}{declaration.described[1:]}."
    names = (declaration.flag, parameter_name(key))
    if kind == "bool":
        return click.option(*names, is_flag=True, default=None, help=text)
    multiple = kind.startswith("tuple")
    return click.option(*names, type=_type(kind, declaration), multiple=multiple, help=text)


def _type(kind: str, declaration: Setting) -> Any:
    kind = kind.removeprefix("tuple[")
    if kind.startswith("int"):
        low, high = _bounds(declaration.range)
        return click.IntRange(min=low, max=2**31 - 1 if high is None else high)
    return Number(declaration) if kind.startswith("float") else Name(declaration)


def _bounds(allowed: Interval | None) -> tuple[int | None, int | None]:
    if allowed is None:
        return None, None
    low, high = (None if math.isinf(bound) else int(bound) for bound in (allowed.low, allowed.high))
    return low, high
