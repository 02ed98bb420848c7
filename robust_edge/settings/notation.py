"""Settings as YAML text, in which numbers may also be written as 8/255 and 1e-3."""

from __future__ import annotations

import re
from typing import Any

import yaml

from robust_edge.settings.ranges import parse_fraction
from robust_edge_runtimes.core.errors import InputError

BAD_YAML = (yaml.YAMLError, ValueError, RecursionError)  # PyYAML lets the last two through, as for 2001-99-99
FLOAT = "tag:yaml.org,2002:float"
FRACTION = "!fraction"
DIGITS = "+-.0123456789"  # what a number begins with
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


class _Loader(yaml.SafeLoader):
    """A loader that reads 1e-3, which is text in YAML 1.1, and 8/255 as numbers."""


class _Dumper(yaml.SafeDumper):
    """A dumper that quotes text that the loader would read as a number."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(FLOAT, re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list(DIGITS))
    _kind.add_implicit_resolver(FRACTION, re.compile(rf"{NUMBER}/{NUMBER}$"), list(DIGITS))


def _construct_fraction(loader: yaml.SafeLoader, node: yaml.Node) -> float:
    return parse_fraction(str(loader.construct_scalar(node)))  # type: ignore[arg-type]


_Loader.add_constructor(FRACTION, _construct_fraction)


def read_yaml(text: str) -> Any:
    """Parse a YAML text.

    Raises:
        BAD_YAML: one of these exceptions, if the text is not valid YAML.
    """
    return yaml.load(text, Loader=_Loader)


def read_assignment(text: str) -> tuple[str, Any]:
    """Name and value of `name=value`, the value in YAML.

    Raises:
        InputError: there is no `=`, or the value is not valid YAML.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"a setting is given as NAME=VALUE; got {text!r}")
    try:
        return name, read_yaml(value)
    except BAD_YAML as cause:
        reason = f" ({cause})" if isinstance(cause, ValueError) else ""
        raise InputError(f"{text}: the value is not valid YAML{reason}") from cause


def write_yaml(plain: Any) -> str:
    """Write nested dicts, lists and scalars as YAML; `read_yaml` returns the same values."""
    return str(yaml.dump(plain, Dumper=_Dumper, sort_keys=False))
