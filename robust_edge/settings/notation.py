"""Settings as text: YAML in which numbers may be written as the field writes them, 8/255 and 1e-3."""

from __future__ import annotations

import re
from typing import Any

import yaml

from robust_edge.settings.ranges import parse_fraction

BAD_YAML = (yaml.YAMLError, ValueError, RecursionError)  # PyYAML lets the last two through, as for 2001-99-99
FLOAT = "tag:yaml.org,2002:float"
FRACTION = "!fraction"
DIGITS = "+-.0123456789"  # what a number begins with
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"


class _Loader(yaml.SafeLoader):
    """Reads 1e-3, which YAML 1.1 takes for text, and 8/255 as numbers."""


class _Dumper(yaml.SafeDumper):
    """Quotes text that the loader would take for a number."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(FLOAT, re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list(DIGITS))
    _kind.add_implicit_resolver(FRACTION, re.compile(rf"{NUMBER}/{NUMBER}$"), list(DIGITS))


def _construct_fraction(loader: yaml.SafeLoader, node: yaml.Node) -> float:
    return parse_fraction(str(loader.construct_scalar(node)))  # type: ignore[arg-type]


_Loader.add_constructor(FRACTION, _construct_fraction)


def read_yaml(text: str) -> Any:
    """What a YAML text holds.

    Raises:
        BAD_YAML: one of these; the text is not valid.
    """
    return yaml.load(text, Loader=_Loader)


def write_yaml(plain: Any) -> str:
    """Nested dicts, lists and scalars as YAML that `read_yaml` reads back as they are."""
    return str(yaml.dump(plain, Dumper=_Dumper, sort_keys=False))
