"""A setting is declared once, as a dataclass field: name, type, default, and everything else in the field's metadata.

Command-line options (`settings.options`), the checks of values from YAML and `--set`, and the page docs/settings.md
are made from these declarations.
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
"""A schedule of whole numbers by name, or one value per epoch."""

PER_EPOCH = "a list with one value per epoch"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """The metadata of a setting: everything beyond the name, type and default of its field.

    Attributes:
        help: one sentence without its full stop.
        flag: command-line option; "" for a setting that is set only by files and `--set`.
        choices: the allowed texts, each with a summary or "".
        beside: other allowed values in words. If it begins with "package", values that contain ":" are allowed as
            references to the user's own code.
        range: allowed range of a number, or of every number in a list.
        noun: what the number is, for error messages, for example "a fraction".
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
        """The help text with the choices."""
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
    """Declare a dataclass field as a setting.

    Args:
        default: default value; or give `factory`.
        help: this and the following are described in `Setting`.
        factory: function that returns the default value.
        flag: for example `--keep`.
        choices: names, or names with their summaries.
        beside: for example "package.module:Class".
        range: for example "(0, 1]" or "[1, inf)".
        noun: for example "a fraction".
        hint: for example "10% is 0.1".
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
    """The declarations of all settings of a dataclass or an instance, by name, in order."""
    return {
        field.name: field.metadata["setting"] for field in dataclasses.fields(section) if "setting" in field.metadata
    }


def check(section: Any, group: str = "") -> None:
    """Check every setting of a dataclass instance against its declaration; for `__post_init__`.

    Args:
        section: the instance; the types of values from files have been checked by `decode`.
        group: name of the section, for error messages; "" for the top level.

    Raises:
        InputError: a value is outside its range or not among its choices; the message names it as `group.name`.
    """
    for name, declaration in settings_of(section).items():
        check_value(f"{group}.{name}".lstrip("."), getattr(section, name), declaration)


def check_value(name: str, value: Any, declaration: Setting) -> None:
    """Check one value; None and booleans pass, since the type of the field decides whether they are allowed.

    Raises:
        InputError: the value is outside the range or not among the choices.
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
    """All settings of a config as (dotted name, field, declaration), those of its sections first."""
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(field.default_factory):
            yield from walk(field.default_factory, f"{field.name}.")
    for field in dataclasses.fields(cls):
        if "setting" in field.metadata:
            yield group + field.name, field, field.metadata["setting"]
