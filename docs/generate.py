"""Writes what the docs list of the code: tables between markers, the page of settings, the schema of verify.json.

python docs/generate.py            # as `make docs` does; a test holds that the committed files are current
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from robust_edge.attacks.table import ATTACKS, OWN, attack_class
from robust_edge.config.reference import default_text, settings_page
from robust_edge.data.table import DATASETS
from robust_edge.models.table import ARCHITECTURES, ZOOS
from robust_edge.plugins import OWN_FUNCTION
from robust_edge.pruning.schemes import SCHEMES, scheme_class
from robust_edge.settings.setting import settings_of
from robust_edge.verification.modes.table import MODES
from robust_edge_exporters.schema import verdict_schema
from robust_edge_runtimes.attacks.threat import SYMBOLS
from robust_edge_runtimes.modes.table import DEVICE_MODES
from robust_edge_runtimes.verdict.flags import EVALUATE, VALIDITY_FLAGS, VERIFY

DOCS = Path(__file__).parent
sys.path.append(str(DOCS))

from measured import MEASURED, markdown  # noqa: E402

BLOCK = re.compile(r"(<!-- generated: ([\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def modes() -> str:
    """The verify modes."""
    rows = [
        (f"`{mode.name}`", mode.help, mode.needs or "–", mode.default.value, "yes" if mode in DEVICE_MODES else "no")
        for mode in MODES
    ]
    return markdown(("mode", "attack", "needs, beside the bundle", "by default", "on the device"), rows)


def flags(command: str) -> str:
    """The validity flags that a command raises."""
    rows = [(f"`{flag.name}`", flag.meaning) for flag in VALIDITY_FLAGS if command in flag.raised_by]
    return markdown(("flag", "raised when"), rows)


def attacks() -> str:
    """The attacks that `--attack` names."""
    rows = []
    for name, row in ATTACKS.items():
        cls = attack_class(name)
        settings = ", ".join(f"`{field.name}`" for field in dataclasses.fields(cls))
        norms = ", ".join(SYMBOLS[norm] for norm in cls.norms)
        rows.append((f"`{name}`", row.summary, settings or "none", norms))
    rows.append((f"`{OWN}`", "an attack of your own", "its fields", "its own"))
    return markdown(("`--attack`", "what it is", "settings", "norms"), rows)


def attack_settings() -> str:
    """The settings of the attacks; one row for all attacks that declare a setting in the same way."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for name in ATTACKS:
        cls = attack_class(name)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for setting, declaration in settings_of(cls).items():
            key = (f"`{setting}`", default_text(fields[setting]), declaration.help)
            rows.setdefault(key, []).append(f"`{name}`")
    listed = [(name, ", ".join(names), default, meaning) for (name, default, meaning), names in rows.items()]
    return markdown(("setting", "attacks", "default", "meaning"), listed)


def choices() -> str:
    """The names of data sets, networks and schemes, with their summaries."""
    tables = {
        "--dataset": (DATASETS, OWN_FUNCTION),
        "--arch": (ARCHITECTURES, OWN_FUNCTION),
        "--scheme": (SCHEMES, OWN),
    }
    libraries = ", ".join(f"`{name}/NAME` ({row.summary})" for name, row in ZOOS.items())
    lines = []
    for option, (table, own) in tables.items():
        names = [f"`{name}`" + (f" ({row.summary})" if row.summary else "") for name, row in table.items()]
        more = [libraries] if table is ARCHITECTURES else []
        lines.append(f"- `{option}`: {', '.join([*names, *more])}, or your own as `{own}`")
    return "".join(textwrap.fill(line, 120, subsequent_indent="  ", break_on_hyphens=False) + "\n" for line in lines)


def schemes() -> str:
    """The pruning schemes: the first paragraph of the class is the constraint."""
    rows = []
    for name in SCHEMES:
        cls = scheme_class(name)
        constraint = " ".join((inspect.getdoc(cls) or "").partition("\n\n")[0].split())
        settings = ", ".join(f"`{setting}`" for setting in settings_of(cls))
        rows.append((f"`{name}`", constraint, settings or "none"))
    rows.append((f"`{OWN}`", "a scheme of your own", "its fields"))
    return markdown(("`--scheme`", "constraint", "settings (`pruning.NAME`)"), rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "modes": modes,
    "flags of verify": lambda: flags(VERIFY),
    "flags of evaluate": lambda: flags(EVALUATE),
    "attacks": attacks,
    "attack settings": attack_settings,
    "choices": choices,
    "schemes": schemes,
    **MEASURED,
}


def pages() -> dict[Path, str]:
    """Every generated file with the text that it should have."""
    found = {
        DOCS / "settings.md": settings_page(),
        DOCS / "schema/verify.schema.json": json.dumps(verdict_schema(), indent=2) + "\n",
    }
    for page in (*sorted(DOCS.glob("*.md")), DOCS.parent / "README.md"):
        text = page.read_text("utf-8")
        if BLOCK.search(text):
            found[page] = BLOCK.sub(lambda match: match[1] + BLOCKS[match[2]]() + match[3], text)
    return found


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
