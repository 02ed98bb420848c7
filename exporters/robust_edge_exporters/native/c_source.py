"""The engine's C sources: their constants, the sizes of a network written into them, and one file made of all.

Every constant is written once. What holds for the engine (UNIT, TAPS_MAX, FORMAT_VERSION, ...) is a `#define` in a
header, and Python reads it with `c_constant`. What holds for a network (config.h, model.h) is computed in Python and
written over the values of the example in the header with `with_defines`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import resources

ROOT = "model.c"
SHIPPED = "model.h"  # stays an #include: it lies beside model.c
INCLUDE = re.compile(r'^#include "(\w+\.h)"\n', re.MULTILINE)
GUARD = re.compile(r"^#ifndef (ROBUST_EDGE_\w+)\n#define \1\n\n?(.*)#endif\n$", re.MULTILINE | re.DOTALL)


def source(name: str) -> str:
    """Text of a C source that ships with the package."""
    return resources.files(__package__).joinpath(f"csrc/{name}").read_text(encoding="utf-8")


def c_constants(header: str, name: str) -> tuple[int, ...]:
    """The different values that `header` defines `name` as, in its order, where instruction sets differ."""
    values = re.findall(rf"^#define {name} (\d+)", source(header), re.MULTILINE)
    assert values, f"{header} does not define {name}"
    return tuple(dict.fromkeys(map(int, values)))


def c_constant(header: str, name: str) -> int:
    """The value that `header` defines `name` as."""
    (value,) = c_constants(header, name)
    return value


def with_defines(text: str, values: Mapping[str, object]) -> str:
    """`text` with other values in its `#define` lines."""
    for name, value in values.items():
        text, count = re.subn(rf"^(#define {name}) \S+", rf"\1 {value}", text, flags=re.MULTILINE)
        assert count == 1, f"{count} definitions of {name}"
    return text


def without_first_comment(text: str) -> str:
    """`text` behind the comment that it begins with."""
    return text.partition("*/\n")[2]


def amalgamate(generated: Mapping[str, str]) -> str:
    """model.c with the text of each header, once, in the place of its #include.

    Args:
        generated: texts of headers that are written for the network, by name, instead of those in csrc.
    """
    seen: set[str] = set()

    def headers(text: str) -> Iterator[str]:
        """Texts of the headers that `text` includes and that are not seen yet, those that they include before them."""
        for name in INCLUDE.findall(text):
            if name != SHIPPED and name not in seen:
                seen.add(name)
                header = GUARD.sub(r"\2", generated.get(name) or source(name))
                yield from headers(header)
                yield INCLUDE.sub("", header).strip()

    before, include, after = source(ROOT).partition('#include "network.h"\n')
    return without_repeated_includes("\n\n".join([before.strip(), *headers(include), after.strip()])) + "\n"


def without_repeated_includes(text: str) -> str:
    """`text` without the system headers that it has included before, outside of conditions."""
    seen: set[str] = set()
    kept, depth = [], 0
    for line in text.splitlines():
        depth += line.startswith("#if") - line.startswith("#endif")
        if depth == 0 and line.startswith("#include <"):
            if line in seen:
                continue
            seen.add(line)
        kept.append(line)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(kept))
