"""The options of `export` that only one artifact format has, as the formats declare them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from robust_edge.settings.options import setting_options
from robust_edge.settings.ranges import Interval
from robust_edge.settings.setting import Setting
from robust_edge_exporters.format_option import FormatOption
from robust_edge_exporters.formats.table import all_options

C = TypeVar("C", bound=Callable[..., Any])


def format_options(command: C) -> C:
    """Add an option for every option of every format; the command receives None for those that are not given."""
    declared = [(option.name, option.type.__name__, _setting(option)) for option in all_options()]
    return setting_options(declared)(command)


def _setting(option: FormatOption) -> Setting:
    numeric = option.type in (int, float)
    allowed = Interval(option.minimum, option.maximum, open_low=False, open_high=False) if numeric else None
    return Setting(help=option.help, flag=option.flag, range=allowed)
