"""The C sources of the engine: read their constants, write sizes of a network into them, and join them to one file.

Every constant is defined once. Constants of the engine (UNIT, TAPS_MAX, FORMAT_VERSION, ...) are `#define`s in a
header, which Python reads with `c_constant`. Constants of a network (config.h, model.h) are computed in Python, and
`with_defines` replaces the example values in the header by them.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Mapping
from importlib import resources

from robust_edge_runtimes.core.errors import InputError

ROOT = "model.c"
SHIPPED = "model.h"  # stays an #include: it lies beside model.c
INCLUDE = re.compile(r'^#include "(\w+\.h)"\n', re.MULTILINE)
GUARD = re.compile(r"^#ifndef (ROBUST_EDGE_\w+)\n#define \1\n\n?(.*)#endif\n$", re.MULTILINE | re.DOTALL)


def source(name: str) -> str:
    """Text of a C source in `csrc`."""
    return resources.files(__package__).joinpath(f"csrc/{name}").read_text(encoding="utf-8")


def c_constants(header: str, name: str) -> tuple[int, ...]:
    """All values of the constant `name` in `header`, in order; there are several if instruction sets differ."""
    values = re.findall(rf"^#define {name} (\d+)", source(header), re.MULTILINE)
    assert values, f"{header} does not define {name}"
    return tuple(dict.fromkeys(map(int, values)))


def c_constant(header: str, name: str) -> int:
    """The value of the constant `name` in `header`."""
    (value,) = c_constants(header, name)
    return value


def c_text(header: str, name: str) -> str:
    """The text that `header` defines `name` as."""
    (text,) = re.findall(rf'^#define {name} "(.*?)"', source(header), re.MULTILINE)
    return str(text)


def c_enumerators(header: str, name: str) -> tuple[str, ...]:
    """The names of `enum name` in `header`, in order."""
    (body,) = re.findall(rf"^enum {name} {{(.*?)}};", source(header), re.MULTILINE | re.DOTALL)
    return tuple(re.findall(r"\w+", body))


def with_defines(text: str, values: Mapping[str, object]) -> str:
    """Replace the values in the `#define` lines of `text`."""
    for name, value in values.items():
        text, count = re.subn(rf"^(#define {name}) \S+", rf"\1 {value}", text, flags=re.MULTILINE)
        assert count == 1, f"{count} definitions of {name}"
    return text


def check_prefix(prefix: str) -> None:
    """Check the prefix of the names of a network's functions.

    Raises:
        InputError: it is not a letter followed by letters, digits and underscores, at most 40; or a function would have
            the name of one of the C library or of the engine.
    """
    if not re.fullmatch(r"[A-Za-z]\w{0,39}", prefix, re.ASCII):
        raise InputError(
            f"symbol_prefix is {prefix!r}; give a letter and up to 39 letters, digits and underscores, such as plants"
        )
    engine, names = _engine_names(), {new for old, new in _renamed(prefix).items() if new != old}
    taken = sorted(name for name in names if name in engine or _is_in_c_library(name))
    if taken:
        raise InputError(
            f"symbol_prefix {prefix!r} gives a function of the network the name {taken[0]}, which the C library or the "
            "engine has already; choose another prefix"
        )


def _engine_names() -> set[str]:
    files = resources.files(__package__).joinpath("csrc").iterdir()
    return {name for file in files for name in re.findall(r"\b\w+\b", file.read_text(encoding="utf-8"))}


def _is_in_c_library(name: str) -> bool:
    try:
        return hasattr(ctypes.CDLL(None), name)
    except (OSError, TypeError):  # on Windows no library holds the names of all
        return False


def _renamed(prefix: str) -> dict[str, str]:
    """Other names for what model.h declares: `prefix`_create for re_create, PREFIX_OK for RE_OK."""
    declared = set(re.findall(r"\b(?:re|RE)_\w+", source(SHIPPED)))
    names = {name: (prefix if name.startswith("re") else prefix.upper()) + name[2:] for name in declared}
    return {**names, "ROBUST_EDGE_MODEL_H": f"{prefix.upper()}_MODEL_H"}


def with_prefix(text: str, prefix: str) -> str:
    """`text` with the names that begin with `prefix`."""
    names = _renamed(prefix)
    return text if prefix == "re" else re.sub(r"\b\w+\b", lambda found: names.get(found[0], found[0]), text)


def without_first_comment(text: str) -> str:
    """`text` without the comment at its start."""
    return text.partition("*/\n")[2]


def amalgamate(generated: Mapping[str, str]) -> str:
    """model.c in which each #include of a header is replaced by its text, at its first occurrence.

    Args:
        generated: texts of headers that are generated for the network, by name; they replace those in `csrc`.
    """
    seen: set[str] = set()

    def headers(text: str) -> Iterator[str]:
        """Texts of the headers that `text` includes directly or indirectly, without those already included."""
        for name in INCLUDE.findall(text):
            if name != SHIPPED and name not in seen:
                seen.add(name)
                header = GUARD.sub(r"\2", generated.get(name) or source(name))
                yield from headers(header)
                yield INCLUDE.sub("", header).strip()

    before, include, after = source(ROOT).partition('#include "network.h"\n')
    return without_repeated_includes("\n\n".join([before.strip(), *headers(include), after.strip()])) + "\n"


def without_repeated_includes(text: str) -> str:
    """`text` without repeated includes of system headers; includes inside conditions are kept."""
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
