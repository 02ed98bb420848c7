"""What the modes of verify are told: settings of all modes, and those that a mode declares for itself."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Iterable, Mapping, Optional


@dataclasses.dataclass(frozen=True)
class ModeOption:
    """A whole number, at least 1, that a mode declares in its row; `verify` has an option of that name.

    Attributes:
        name: key in `ModeSettings.options`; the flag is `--name`.
        help: one sentence without its full stop.
        default: where it is not given.
        few: the default of a verification that names no mode; None for `default`.
    """

    name: str
    help: str
    default: int
    few: Optional[int] = None


@dataclasses.dataclass(frozen=True)
class ModeSettings:
    """Settings of the modes on a device.

    Attributes:
        limit: most images per mode; None for all that there are.
        seed: of the draw of images and of every attack.
        options: values of what the modes declare, by name; what is missing has its default.
    """

    limit: Optional[int] = None
    seed: int = 1
    options: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def value(self, option: ModeOption) -> int:
        """The value of an option: as given, or its default."""
        return self.options.get(option.name, option.default)


def given(values: Mapping[str, Optional[int]]) -> Dict[str, int]:
    """The values of a command line without those that were not given."""
    return {name: value for name, value in values.items() if value is not None}


def few(options: Iterable[ModeOption], given: Mapping[str, int]) -> Dict[str, int]:
    """What is given, and the smaller defaults of a verification that names no mode."""
    return {**{option.name: option.few for option in options if option.few is not None}, **given}


def options_of(modes: Iterable[Any]) -> Dict[str, ModeOption]:
    """The options that the rows of a table declare, each once, by name."""
    return {option.name: option for mode in modes for option in mode.options}
