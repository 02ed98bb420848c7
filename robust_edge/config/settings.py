"""How the layers of a config combine, and how it is read and written.

Order, later wins: the defaults, preset, `--config` file, command-line flags, `--set key=value`. The resolved config is
written into the run as `config.yaml`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from robust_edge.config.compress import CompressConfig
from robust_edge.pruning.settings import PruningConfig
from robust_edge.settings.notation import BAD_YAML, read_yaml, write_yaml
from robust_edge_runtimes.core.decode import decode
from robust_edge_runtimes.core.errors import InputError, unknown_name

PRESETS = ("quick", "strong", "thesis")


def resolve(
    *,
    preset: str | None = None,
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    assignments: Iterable[str] = (),
    base: CompressConfig | None = None,
) -> CompressConfig:
    """Combine the layers into one config.

    Args:
        preset: a name of PRESETS.
        file: a YAML file with any part of a config.
        flags: dotted key to value, from the command line; None values are left out.
        assignments: `key=value` texts, the value in YAML.
        base: what to start from instead of the defaults.

    Raises:
        InputError: an unknown key, a value out of its range, a file that is not YAML.
    """
    merged: dict[str, Any] = {} if base is None else to_plain(base)
    if preset is not None:
        if preset not in PRESETS:
            raise unknown_name("preset", preset, PRESETS)
        text = resources.files(__package__).joinpath(f"presets/{preset}.yaml").read_text()
        _merge(merged, _parse(text, preset))
    if file is not None:
        if not file.is_file():
            raise InputError(f"--config {file} is not a file")
        _merge(merged, _parse(read_text(file), str(file)))
    _merge(merged, _nested({key: value for key, value in (flags or {}).items() if value is not None}))
    given: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise InputError(f"--set takes key=value, for example --set training.lr=0.1; got {assignment!r}")
        given[key] = _parse_value(text, assignment)
    _merge(merged, _nested(given))
    _refuse_bare(merged)
    return from_plain(merged)


def from_yaml(text: str, where: str) -> CompressConfig:
    """Read a config that a run wrote."""
    return from_plain(_parse(text, where), where)


def from_plain(plain: Mapping[str, Any], where: str = "") -> CompressConfig:
    """Read nested dicts, as YAML holds them.

    Args:
        plain: any part of a config.
        where: where it comes from, for error messages.

    Raises:
        InputError: an unknown key, a value of another type or out of its range.
    """
    config = decode(CompressConfig, {key: value for key, value in plain.items() if key != "pruning"}, where=where)
    return dataclasses.replace(config, pruning=PruningConfig.from_plain(plain.get("pruning", {}), where))


def to_plain(config: CompressConfig) -> dict[str, Any]:
    """Nested dicts with every setting, which `from_plain` reads back."""
    return {**dataclasses.asdict(config), "pruning": config.pruning.to_plain()}


def read_text(path: Path) -> str:
    """A text file's content.

    Raises:
        InputError: the file is not UTF-8, so not one of ours.
    """
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as cause:
        raise InputError(f"{path} is not a text file ({cause.reason} at byte {cause.start})") from cause


def to_yaml(config: CompressConfig) -> str:
    """The resolved config, every key written out."""
    return write_yaml(_listed(to_plain(config)))


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        value = read_yaml(text)
    except BAD_YAML as cause:
        raise InputError(f"{where} is not valid YAML: {cause}") from cause
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where} must be a mapping of settings, it holds {type(value).__name__}")
    return value


def _parse_value(text: str, assignment: str) -> Any:
    try:
        return read_yaml(text)
    except BAD_YAML as cause:
        reason = f" ({cause})" if isinstance(cause, ValueError) else ""
        raise InputError(f"--set {assignment}: the value is not valid YAML{reason}") from cause


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Lay one layer over the others; where it names another scheme, the former scheme's own settings are dropped."""
    scheme = layer["pruning"].get("scheme") if isinstance(layer.get("pruning"), dict) else None
    if scheme is not None and isinstance(into.get("pruning"), dict):
        into["pruning"] = PruningConfig.applicable(into["pruning"], scheme)
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            into[key] = {**into[key], **value}
        else:
            into[key] = value


def _nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """`{"training.lr": 0.1}` as `{"training": {"lr": 0.1}}`."""
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
    """Name in full what was given without its group, as `lr` for `training.lr`."""
    known = to_plain(CompressConfig())
    for key in settings.keys() - known.keys():
        full = [f"{group}.{key}" for group, inside in known.items() if isinstance(inside, dict) and key in inside]
        if full:
            raise InputError(f"unknown key {key!r}; did you mean {' or '.join(full)}?")


def _listed(value: Any) -> Any:
    """The same with lists for tuples, which YAML does not know."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def differences(left: CompressConfig, right: CompressConfig) -> list[str]:
    """Every setting in which two configs differ, as `key: left, not right`."""
    return _differences(to_plain(left), to_plain(right), "")


def _differences(left: dict[str, Any], right: dict[str, Any], prefix: str) -> list[str]:
    found = []
    for key, value in left.items():
        if key not in right:
            continue  # a setting of one scheme alone; that the schemes differ is said already
        if isinstance(value, dict):
            found += _differences(value, right[key], f"{prefix}{key}.")
        elif value != right[key]:
            found.append(f"{prefix}{key}: {value}, not {right[key]}")
    return found
