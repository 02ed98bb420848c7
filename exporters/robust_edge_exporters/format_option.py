"""A setting of an export that only one format has; nothing here imports torch, so that command lines can list them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

from robust_edge_runtimes.core.errors import InputError

OptionValue = bool | int | float | str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class FormatOption:
    """One option: the command line, the manifest's `choices.options` and `ExportSettings.options` follow from it.

    Attributes:
        name: in `ExportSettings.options` and in the manifest.
        type: `bool`, `int`, `float` or `str`.
        default: None where the format chooses by itself if nothing is given.
        help: one sentence without its full stop, for the help page.
        flag: of `robust-edge export`.
        minimum, maximum: of a number, both included.
        precision: of the numbers in the file, without which the option has no meaning; None for any.
    """

    name: str
    type: type[bool] | type[int] | type[float] | type[str]
    help: str
    flag: str
    default: OptionValue = None
    minimum: float = -math.inf
    maximum: float = math.inf
    precision: str | None = None

    def checked(self, value: OptionValue) -> OptionValue:
        """The value, converted to a float where that is the type.

        Raises:
            InputError: it has another type, or is outside the range.
        """
        if value is None and self.default is None:
            return None
        if self.type is float and type(value) is int:
            value = float(value)
        if type(value) is not self.type:
            raise InputError(f"{self.name} must be of type {self.type.__name__}, not {value!r}")
        if isinstance(value, (int, float)) and not self.minimum <= value <= self.maximum:
            raise InputError(f"{self.name} must be in [{self.minimum:g}, {self.maximum:g}]; it is {value:g}")
        return value


def resolved(options: Iterable[FormatOption], given: Mapping[str, OptionValue]) -> dict[str, OptionValue]:
    """The value of each option: the given one, else the default.

    Raises:
        InputError: a given value is not allowed.
    """
    return {option.name: option.checked(given.get(option.name, option.default)) for option in options}
