"""A setting is said once: name, type and default are those of a dataclass field, all else is the field's metadata.

Command-line options (`settings.options`), the checks of values from YAML and `--set`, and the page docs/settings.md
follow from that.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from robust_edge.settings.ranges import Interval, require
from robust_edge_runtimes.core.errors import unknown_name

FloatSchedule = str | tuple[float, ...]
"""A schedule by name, or one value per epoch."""

IntSchedule = str | tuple[int, ...]
"""The same in whole numbers."""

PER_EPOCH = "a list with one value per epoch"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What a field's name, type and default do not say.

    Attributes:
        help: one sentence without its full stop.
        flag: option of the command line; "" for a setting that only files and `--set` reach.
        choices: texts that the value may be, with a summary of each or "".
        beside: what a text may be beside the choices, in words; values that contain ":" are references to the user's
            own code and pass if this begins with "package".
        range: of a number, or of every number in a list.
        noun: what a number is, for error messages.
        hint: an example of a usual value, for error messages.
    """

    help: str
    flag: str = ""
    choices: Mapping[str, str] = dataclasses.field(default_factory=dict)
    beside: str = ""
    range: Interval | None = None
    noun: str = ""
    hint: str = ""

    @property
    def described(self) -> str:
        """The help with the choices."""
        names = [f"{name} ({summary})" if summary else name for name, summary in self.choices.items()]
        listed = ", ".join([*names, f"or {self.beside}"] if self.beside else names)
        return f"{self.help}: {listed}" if listed else self.help


def setting(
    default: Any = dataclasses.MISSING,
    help: str = "",
    *,
    factory: Callable[[], Any] | None = None,
    flag: str = "",
    choices: Iterable[str] | Mapping[str, str] = (),
    beside: str = "",
    range: str = "",
    noun: str = "",
    hint: str = "",
) -> Any:
    """A dataclass field that is a setting.

    Args:
        default: of the field; or `factory`, which makes it.
        help: see `Setting`, as for all that follow.
        factory: makes the default.
        flag: such as `--keep`.
        choices: names, or names with their summaries.
        beside: such as "package.module:Class".
        range: such as "(0, 1]" or "[1, inf)".
        noun: such as "a fraction".
        hint: such as "10% is 0.1".
    """
    named = dict(choices) if isinstance(choices, Mapping) else dict.fromkeys(choices, "")
    interval = Interval.parse(range) if range else None
    return declared(
        Setting(help=help, flag=flag, choices=named, beside=beside, range=interval, noun=noun, hint=hint),
        default,
        factory=factory,
    )


def declared(what: Setting, default: Any = dataclasses.MISSING, *, factory: Callable[[], Any] | None = None) -> Any:
    """A dataclass field of a setting that several classes share."""
    metadata = {"setting": what}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def settings_of(section: Any) -> dict[str, Setting]:
    """Name to declaration of every setting of a dataclass, or of one of its instances, in order."""
    return {
        field.name: field.metadata["setting"] for field in dataclasses.fields(section) if "setting" in field.metadata
    }


def check(section: Any, group: str = "") -> None:
    """Check every setting of a dataclass instance against its declaration; for `__post_init__`.

    Args:
        section: whose types have been checked before (`decode`), as far as they come from outside.
        group: name of the section, for error messages; "" at the top.

    Raises:
        InputError: a value outside its range or its choices, named as `group.name`.
    """
    for name, declaration in settings_of(section).items():
        check_value(f"{group}.{name}".lstrip("."), getattr(section, name), declaration)


def check_value(name: str, value: Any, declaration: Setting) -> None:
    """Check one value; None and truth values are allowed wherever the type of the field allows them.

    Raises:
        InputError: it lies outside the range or the choices.
    """
    if isinstance(value, tuple):
        schedule = declaration.range is not None
        require(bool(value) or not schedule, name, list(value), " or ".join([*declaration.choices, PER_EPOCH]))
        for item in value:
            check_value(name, item, declaration)
    elif isinstance(value, str):
        own = ":" in value and declaration.beside.startswith("package")
        if declaration.choices and value not in declaration.choices and not own:
            raise unknown_name(name, value, filter(None, [*declaration.choices, declaration.beside]))
    elif declaration.range is not None and isinstance(value, (int, float)):
        require(value in declaration.range and math.isfinite(value), name, value, _allowed(declaration))


def _allowed(declaration: Setting) -> str:
    assert declaration.range is not None
    hint = f" ({declaration.hint})" if declaration.hint else ""
    return f"{declaration.noun} {declaration.range.words}{hint}".lstrip()


def walk(cls: type, group: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Setting]]:
    """Every setting of a config and of the sections in it, which come first, as (dotted name, field, declaration)."""
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(field.default_factory):
            yield from walk(field.default_factory, f"{field.name}.")
    for field in dataclasses.fields(cls):
        if "setting" in field.metadata:
            yield group + field.name, field, field.metadata["setting"]
