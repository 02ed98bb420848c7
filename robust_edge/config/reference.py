"""The page docs/settings.md, written from the declarations of the settings.

`make docs` writes it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from robust_edge.config.compress import CompressConfig
from robust_edge.config.presets import PRESETS
from robust_edge.data.table import DATASETS
from robust_edge.plugins import OWN_CLASS, OWN_FUNCTION, Row
from robust_edge.pruning.schemes import SCHEMES, scheme_class
from robust_edge.pruning.settings import DEFAULT
from robust_edge.settings.notation import write_yaml
from robust_edge.settings.setting import Setting, settings_of

COMMAND = "make docs"
HEAD = f"""# Settings

<!-- Written by `{COMMAND}`; do not edit. -->

Every setting of `robust-edge compress` can be given in a YAML file (`--config FILE`) or as `--set
section.name=VALUE`; some have an option of their own. Later ones override earlier ones: the defaults, `--preset` (one
of {", ".join(PRESETS)}), `--config`, options, `--set`. The run contains all of them in its `config.yaml`. Numbers may
be written as 8/255 or 1e-3. `null` means no value.
"""
TYPES = {
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "tuple[str, ...]": "list",
    "tuple[float, ...]": "list of numbers",
    "tuple[int, ...]": "list of whole numbers",
}


def settings_page() -> str:
    """The whole page as Markdown."""
    sections = [field for field in dataclasses.fields(CompressConfig) if "setting" not in field.metadata]
    parts = [HEAD, "## The run\n", _table(CompressConfig, "")]
    for field in sections:
        section = field.default_factory
        assert isinstance(section, type)
        parts += [f"## `{field.name}`\n", f"{inspect.getdoc(section)}\n", _table(section, f"{field.name}.")]
        if field.name == "data":
            parts += ["### Data sets\n", _rows(DATASETS, OWN_FUNCTION)]
        if field.name == "pruning":
            parts += ["### Schemes\n", _rows(SCHEMES, OWN_CLASS), *(_scheme(name) for name in SCHEMES)]
    return "\n".join(parts)


def _scheme(name: str) -> str:
    scheme = scheme_class(name)
    summary = (inspect.getdoc(scheme) or "").partition("\n\n")[0]
    return f"#### Scheme `{name}`\n\n{summary}\n\n{_table(scheme, 'pruning.')}"


def _table(section: Any, group: str) -> str:
    lines = ["| setting | option | default | values | meaning |", "| --- | --- | --- | --- | --- |"]
    fields = {field.name: field for field in dataclasses.fields(section)}
    for name, declaration in settings_of(section).items():
        field = fields[name]
        option = f"`{declaration.flag}`" if declaration.flag else ""
        values = _values(str(field.type), declaration)
        cells = [f"`{group}{name}`", option, default_text(field), values, declaration.help]
        lines.append(f"| {' | '.join(cell.replace('|', chr(0x2223)) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _rows(table: Mapping[str, Row], own: str) -> str:
    lines = [f"- `{name}`: {row.summary}" for name, row in table.items()]
    return "\n".join([*lines, f"- `{own}`: your own code"]) + "\n"


def default_text(field: dataclasses.Field[Any]) -> str:
    """The default of a setting as YAML."""
    if field.default is dataclasses.MISSING:
        return f"`{DEFAULT}`"  # the scheme: the only setting with a default_factory
    if isinstance(field.default, tuple):
        return f"`{list(field.default)}`"
    return f"`{write_yaml(field.default).removesuffix('...' + chr(10)).strip()}`"


def _values(kind: str, declaration: Setting) -> str:
    """The allowed values of a setting: its choices, or its type and range."""
    if declaration.choices:
        return _choices([*declaration.choices.items(), *([(declaration.beside, "")] if declaration.beside else [])])
    first, *others = kind.split(" | ")
    allowed = f" in {declaration.range}" if declaration.range is not None else ""
    return ", or ".join([f"{TYPES[first]}{allowed}", *({"None": "null", **TYPES}[other] for other in others)])


def _choices(choices: Iterable[tuple[str, str]]) -> str:
    return "; ".join(f"{name}: {summary}" if summary else name for name, summary in choices)
