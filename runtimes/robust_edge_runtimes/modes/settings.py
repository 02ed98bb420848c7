"""Settings of the verify modes: those of all modes, and the options that a mode declares in its row."""

from __future__ import annotations

import dataclasses
from typing import Dict, Iterable, Mapping, Optional


@dataclasses.dataclass(frozen=True)
class ModeOption:
    """An integer option, at least 1, that a mode declares in its row; `verify` has an option of the same name.

    Attributes:
        name: key in `ModeSettings.options`; the flag is `--name`.
        help: one sentence without its full stop.
        default: the value if the option is not given.
        quick: the value if neither the option nor a mode is given; None for `default`.
    """

    name: str
    help: str
    default: int
    quick: Optional[int] = None


@dataclasses.dataclass(frozen=True)
class ModeSettings:
    """Settings of the modes on a device.

    Attributes:
        limit: largest number of images per mode; None for all.
        seed: for drawing images and for every attack.
        options: values of the options that the modes declare, by name; missing ones have their default.
    """

    limit: Optional[int] = None
    seed: int = 1
    options: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def value(self, option: ModeOption) -> int:
        """The value of an option, or its default if it was not given."""
        return self.options.get(option.name, option.default)


def without_none(values: Mapping[str, Optional[int]]) -> Dict[str, int]:
    """The options of a command line without those that were not given."""
    return {name: value for name, value in values.items() if value is not None}


def quick_defaults(options: Iterable[ModeOption], values: Mapping[str, int]) -> Dict[str, int]:
    """`values`, completed by the quick defaults, for a verification that names no mode."""
    return {**{option.name: option.quick for option in options if option.quick is not None}, **values}
