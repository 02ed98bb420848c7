"""Combine the sources of a config; read and write configs as YAML.

Later sources override earlier ones: defaults, preset, `--config` file, flags, `--set key=value`. The resolved config is
written into the run as `config.yaml`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from robust_edge.config.compress import CompressConfig
from robust_edge.config.conflicts import refuse_conflicts
from robust_edge.config.presets import PRESETS, preset_text
from robust_edge.plugins import is_own
from robust_edge.pruning.settings import PruningConfig
from robust_edge.settings.notation import BAD_YAML, read_assignment, read_yaml, write_yaml
from robust_edge_runtimes.core.decode import decode
from robust_edge_runtimes.core.errors import InputError, unknown_name

MAX_TEXT = 16 << 20


def resolve(
    *,
    preset: str | None = None,
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
    base: CompressConfig | None = None,
) -> CompressConfig:
    """Combine all sources into one config.

    Args:
        preset: a name of PRESETS.
        file: a YAML file with any part of a config.
        flags: dotted key to value, from the command line; None values are left out.
        assignments: `key=value` texts, the value in YAML.
        base: the config to start from instead of the defaults, that of a run that exists.

    Raises:
        InputError: a key is unknown, a value is outside its range or would have no effect, or a file is not YAML.
    """
    merged: dict[str, Any] = {} if base is None else to_plain(base)
    if preset is not None:
        if preset not in PRESETS:
            raise unknown_name("preset", preset, PRESETS)
        _merge(merged, parse(preset_text(preset), preset))
    given: dict[str, Any] = {}
    if file is not None:
        if not file.is_file():
            raise InputError(f"the config {file} is not a file; give the path of a YAML file")
        _merge(given, parse(read_text(file), str(file)))
    _merge(given, _nested({key: value for key, value in (flags or {}).items() if value is not None}))
    _merge(given, _nested(dict(map(read_assignment, assignments))))
    if base is None:
        _merge(merged, _without_pruning(given))
    _merge(merged, given)
    _refuse_bare(merged)
    config = from_plain(merged)
    if base is None:
        refuse_conflicts(config)
    return config


def from_yaml(text: str, where: str) -> CompressConfig:
    """Read a config that a run wrote."""
    return from_plain(parse(text, where), where)


def own_code(plain: Mapping[str, Any]) -> list[str]:
    """The functions and classes of the user's own that a config names, from nested dicts, without importing them."""
    named = [plain.get("arch"), *(_inside(plain, *key) for key in (("data", "dataset"), ("pruning", "scheme")))]
    return [name for name in named if isinstance(name, str) and is_own(name)]


def _inside(plain: Mapping[str, Any], section: str, key: str) -> Any:
    inside = plain.get(section)
    return inside.get(key) if isinstance(inside, dict) else None


def from_plain(plain: Mapping[str, Any], where: str = "") -> CompressConfig:
    """Read a config from nested dicts, as a YAML parser returns them.

    Args:
        plain: any part of a config.
        where: name of the source, for error messages.

    Raises:
        InputError: a key is unknown, or a value has another type or is outside its range.
    """
    config = decode(CompressConfig, {key: value for key, value in plain.items() if key != "pruning"}, where=where)
    return dataclasses.replace(config, pruning=PruningConfig.from_plain(plain.get("pruning", {}), where))


def to_plain(config: CompressConfig) -> dict[str, Any]:
    """Nested dicts with all settings, which `from_plain` reads."""
    return {**dataclasses.asdict(config), "pruning": config.pruning.to_plain()}


def read_text(path: Path) -> str:
    """A text file's content.

    Raises:
        InputError: the file is not UTF-8 text, too large, or no regular file: a device, a pipe or a file in /proc
            may never end.
    """
    if (path.exists() and not path.is_file()) or path.resolve().parts[:2] in (("/", "proc"), ("/", "sys")):
        raise InputError(f"{path} is not a regular file; give the path of a text file on the disk")
    if path.stat().st_size > MAX_TEXT:
        raise InputError(f"{path} has {path.stat().st_size} bytes; a text file to read has at most {MAX_TEXT}")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as cause:
        raise InputError(f"{path} is not a text file ({cause.reason} at byte {cause.start})") from cause


def to_yaml(config: CompressConfig) -> str:
    """The config as YAML, with all settings."""
    return write_yaml(_listed(to_plain(config)))


def parse(text: str, where: str) -> dict[str, Any]:
    """Parse a YAML file with any part of a config.

    Raises:
        InputError: it is not YAML, or not a mapping.
    """
    try:
        value = read_yaml(text)
    except BAD_YAML as cause:
        raise InputError(f"{where} is not valid YAML: {cause}") from cause
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where} must be a mapping of settings, it holds {type(value).__name__}")
    return value


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Override the settings in `into` by those of `layer`; the own settings of a replaced scheme are removed."""
    scheme = layer["pruning"].get("scheme") if isinstance(layer.get("pruning"), dict) else None
    if scheme is not None and isinstance(into.get("pruning"), dict):
        into["pruning"] = PruningConfig.applicable(into["pruning"], scheme)
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            into[key] = {**into[key], **value}
        else:
            into[key] = value


def _without_pruning(given: Mapping[str, Any]) -> dict[str, Any]:
    """`pruning.keep` of 1 where the mask of a network is to be held and no kept fraction is given."""
    pruning = given.get("pruning")
    holds = isinstance(pruning, dict) and pruning.get("keep_mask") is True and "keep" not in pruning
    return {"pruning": {"keep": 1.0}} if holds else {}


def _nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """Convert `{"training.lr": 0.1}` to `{"training": {"lr": 0.1}}`."""
    nested: dict[str, Any] = {}
    for key, value in dotted.items():
        *parents, last = key.split(".")
        into = nested
        for parent in parents:
            into = into.setdefault(parent, {})
            if not isinstance(into, dict):
                raise InputError(f"{key}: {parent} is a single value, not a group of settings")
        into[last] = value
    return nested


def _refuse_bare(settings: Mapping[str, Any]) -> None:
    """Raise InputError with the full name for a setting without its group, such as `lr` for `training.lr`."""
    known = to_plain(CompressConfig())
    groups = {group: inside for group, inside in known.items() if isinstance(inside, dict)}
    for key in settings.keys() - known.keys():
        names = {*known, *(name for inside in groups.values() for name in inside)}
        near = difflib.get_close_matches(str(key), sorted(names), n=1)
        full = [f"{group}.{name}" for name in near for group, inside in groups.items() if name in inside]
        if full:
            raise InputError(f"unknown key {key!r}; did you mean {' or '.join(full)}?")


def _listed(value: Any) -> Any:
    """Replace tuples by lists, since YAML has no tuples."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def differences(left: CompressConfig, right: CompressConfig) -> list[str]:
    """All settings in which two configs differ, each as `key: left, not right`."""
    return _differences(to_plain(left), to_plain(right), "")


def assignments_of(config: CompressConfig) -> list[str]:
    """The settings that are not the defaults, each as `key=value` for --set."""
    return [f"{key}={json.dumps(value)}" for key, value in _changed(to_plain(config), to_plain(resolve()), "")]


def _changed(given: dict[str, Any], usual: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in given.items():
        if isinstance(value, dict):
            yield from _changed(value, usual.get(key, {}), f"{prefix}{key}.")
        elif key not in usual or value != usual[key]:
            yield f"{prefix}{key}", value


def _differences(left: dict[str, Any], right: dict[str, Any], prefix: str) -> list[str]:
    found = []
    for key, value in left.items():
        if key not in right:
            continue  # a setting of only one of the schemes; the difference of the schemes is listed separately
        if isinstance(value, dict):
            found += _differences(value, right[key], f"{prefix}{key}.")
        elif value != right[key]:
            found.append(f"{prefix}{key}: {value}, not {right[key]}")
    return found
