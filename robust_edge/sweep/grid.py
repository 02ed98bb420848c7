"""The grid of a sweep: every combination of the values of its settings is one cell."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robust_edge.config.compress import CompressConfig, command_settings
from robust_edge.config.presets import DEFAULT
from robust_edge.config.settings import resolve
from robust_edge_runtimes.core.errors import InputError

PRESET = "preset"
MAX_CELLS = 10_000
MAX_NAME = 100  # leaves room for the names of temporary files
COMMA = re.compile(r",(?![^\[]*\])")  # but those inside of a list


@dataclasses.dataclass(frozen=True)
class Axis:
    """One setting and its values, as written on the command line.

    Attributes:
        key: dotted name of the setting, or `preset`.
    """

    key: str
    values: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommonSettings:
    """The settings of all cells, as `compress` takes them."""

    preset: str | None = None
    file: Path | None = None
    flags: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    assignments: tuple[str, ...] = ()

    @property
    def keys(self) -> set[str]:
        """The settings that are given, but those of the file."""
        given = {*self.flags, *(text.partition("=")[0] for text in self.assignments)}
        return given if self.preset is None else {*given, PRESET}


@dataclasses.dataclass(frozen=True)
class Cell:
    """One combination of values.

    Attributes:
        name: unique in the sweep, and the same in a larger grid over the same settings; names files.
        values: the text of each axis, in the order of the axes.
        config: all settings of its run.
    """

    name: str
    values: tuple[str, ...]
    config: CompressConfig


def read_axis(text: str) -> Axis:
    """Read `key=a,b,...`; the key is the name of a setting, or that of its option of `compress` without dashes.

    Raises:
        InputError: there is no value, or one of them is given twice.
    """
    name, equals, listed = text.partition("=")
    values = tuple(value.strip() for value in COMMA.split(listed))
    if not equals or not name or not all(values):
        raise InputError(f"an axis of the grid is given as KEY=VALUE,VALUE,...; got {text!r}")
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise InputError(f"{text}: {twice} is given twice; leave one out")
    return Axis(_keys_of_options().get(name, name), values)


def grid_cells(axes: Sequence[Axis], common: CommonSettings) -> tuple[Cell, ...]:
    """All cells, those of the last axis in turn first; every config is resolved and checked.

    Raises:
        InputError: an axis occurs twice or is also given for all cells, there are too many cells, or a setting is
            unknown or has a value that it cannot have.
    """
    keys = [axis.key for axis in axes]
    _refuse_repeated(keys, common)
    count = math.prod(len(axis.values) for axis in axes)
    if count > MAX_CELLS:
        raise InputError(f"the grid has {count} cells; give values for at most {MAX_CELLS}")
    combinations = list(itertools.product(*(axis.values for axis in axes)))
    names = [_name(dict(zip(keys, values, strict=True))) for values in combinations]
    return tuple(
        Cell(name if names.count(name) == 1 else _hashed(name, values), values, _config(name, keys, values, common))
        for name, values in zip(names, combinations, strict=True)
    )


def short_names(keys: Sequence[str]) -> list[str]:
    """The last part of each dotted name, or the whole name where two of them end alike."""
    last = [key.rpartition(".")[2] for key in keys]
    return [name if last.count(name) == 1 else key for name, key in zip(last, keys, strict=True)]


def _keys_of_options() -> dict[str, str]:
    """The names of the options of `compress` without dashes, to the settings that they set."""
    return {declared.flag.lstrip("-"): key for key, _, declared in command_settings() if declared.flag}


def _refuse_repeated(keys: Sequence[str], common: CommonSettings) -> None:
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"the grid has two axes {key}; give all values in one")
        if key in common.keys:
            raise InputError(f"{key} is an axis of the grid and also given for all cells; leave one out")


def _config(name: str, keys: Sequence[str], values: Sequence[str], common: CommonSettings) -> CompressConfig:
    """The config of a cell; its paths are absolute, since a job may run in another folder."""
    given = dict(zip(keys, values, strict=True))
    preset = given.pop(PRESET, common.preset)
    assignments = [f"{key}={value}" for key, value in given.items()]
    try:
        config = resolve(
            preset=preset or (DEFAULT if common.file is None else None),
            file=common.file,
            flags=common.flags,
            assignments=(*common.assignments, *assignments),
        )
    except InputError as cause:
        raise InputError(f"cell {name}: {cause}") from cause
    data = dataclasses.replace(config.data, dir=_absolute(config.data.dir))
    return dataclasses.replace(config, data=data, init=_absolute(config.init))


def _absolute(path: str | None) -> str | None:
    return path and str(Path(path).absolute())


def _name(values: Mapping[str, str]) -> str:
    """A name for files, such as `keep=0.1,eps=8-255`."""
    parts = [f"{key}={value}" for key, value in zip(short_names(list(values)), values.values(), strict=True)]
    name = re.sub(r"[^\w.+,=-]+", "-", ",".join(parts))
    return name if len(name) <= MAX_NAME else _hashed(name[: MAX_NAME - 9], tuple(values.values()))


def _hashed(name: str, values: tuple[str, ...]) -> str:
    """The name with a hash of the values, where they cannot be told apart by the name alone."""
    return f"{name}-{hashlib.sha256(repr(values).encode()).hexdigest()[:8]}"
