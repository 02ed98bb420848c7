"""Strict reading of JSON and of plain values into frozen dataclasses, one error per cause."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import reprlib
import types
from pathlib import Path
from typing import Any, Dict, List, Type, TypeVar, Union, get_args, get_origin, get_type_hints

from robust_edge_runtimes.core.errors import InputError, RobustEdgeError, unknown_name

T = TypeVar("T")
MAX_JSON_BYTES = 64 << 20
MAX_LINE = 1000
"""Characters of a line in a verdict; names of an untrusted file in it may be longer."""
MAX_INTEGER = (1 << 63) - 1
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60
UNIONS = (Union, getattr(types, "UnionType", Union))  # `int | None` is a class of its own from Python 3.10


def short_repr(value: Any) -> str:
    """`repr(value)` bounded in length and in depth: the value may come from an untrusted file."""
    return _REPR.repr(value)


def visible(text: str) -> str:
    """Text in one line, with escapes in place of what a terminal would obey or cannot print."""
    printable = text.encode("utf-8", "backslashreplace").decode()
    return _UNSEEN.sub(lambda found: found.group().encode("unicode_escape").decode(), printable)


def bounded(line: str) -> str:
    """A line of a verdict, cut behind MAX_LINE characters."""
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]}..."


def read_json(path: Path, error: Type[RobustEdgeError] = InputError) -> Any:
    """Parse a JSON file; duplicate keys, NaN, deep nesting, files over 64 MiB, and devices and pipes are errors."""
    try:
        if path.exists() and not path.is_file():
            raise error(f"{path} is not a regular file; give the path of a JSON file on the disk")
        if path.stat().st_size > MAX_JSON_BYTES:
            raise error(
                f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB, more than robust-edge writes; give another file"
            )
        return parse_json(path.read_bytes())
    except FileNotFoundError:
        raise error(f"{path} is missing") from None
    except (ValueError, RecursionError) as cause:
        raise error(f"{path} is not valid JSON ({cause}): it was cut short or edited; copy it again") from cause


def parse_json(blob: bytes) -> Any:
    """Parse JSON strictly.

    Raises:
        ValueError: not UTF-8, not JSON, a key given twice, NaN or Infinity.
    """
    return json.loads(blob.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)


def decode(cls: Type[T], value: Any, *, where: str = "", error: Type[RobustEdgeError] = InputError) -> T:
    """Build dataclass `cls` from nested dicts, lists and scalars, checking every type.

    Args:
        cls: a dataclass whose annotations are dataclasses, scalars, Optional, Union, Tuple[T, ...],
            Dict[str, T].
        value: what a JSON or YAML parser returned.
        where: what error messages call `value`, for example a file name.
        error: the class to raise.

    Raises:
        error: a key is unknown or missing, or a value has another type; the message names its path.
    """
    return _dataclass(cls, value, where, error)  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=None)
def _hints(cls: Any) -> Dict[str, Any]:
    return get_type_hints(cls)


def _dataclass(cls: Any, value: Any, where: str, error: Type[RobustEdgeError]) -> Any:
    if not isinstance(value, dict):
        raise error(f"{where or cls.__name__} must be a mapping, not {_shown(value)}")
    hints = _hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in value:
        if key not in fields:
            raise unknown_name(f"key of {where}" if where else "key", _shortened(str(key)), fields, error)
    arguments: Dict[str, Any] = {}
    for name, field in fields.items():
        path = f"{where}.{name}".lstrip(".")
        if name in value:
            arguments[name] = _convert(hints[name], value[name], path, error)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise error(f"{path} is missing")
    return cls(**arguments)


def _convert(hint: Any, value: Any, where: str, error: Type[RobustEdgeError]) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, value, where, error)
    if origin in UNIONS:
        return _first_match(arguments, value, where, error)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise error(f"{where} must be a list, not {_shown(value)}")
        return tuple(_convert(arguments[0], item, f"{where}[{i}]", error) for i, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise error(f"{where} must be a mapping with text keys, not {_shown(value)}")
        return {
            _scalar(str, key, f"a key of {where}", error): _convert(
                arguments[1], item, f"{where}.{_shortened(key)}", error
            )
            for key, item in value.items()
        }
    return _scalar(hint, value, where, error)


def _first_match(options: Any, value: Any, where: str, error: Type[RobustEdgeError]) -> Any:
    causes: List[str] = []
    for option in options:
        if option is type(None):
            if value is None:
                return None
            continue
        try:
            return _convert(option, value, where, error)
        except error as cause:
            causes.append(str(cause))
    raise error(" or ".join(causes))


def _scalar(hint: Any, value: Any, where: str, error: Type[RobustEdgeError]) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            value = float(value)
        except OverflowError:
            raise error(f"{where} must be a finite number, not {_shown(value)}") from None
    if type(value) is not hint:
        names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
        raise error(f"{where} must be {names.get(hint, hint)}, not {_shown(value)}")
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise error(f"{where} must be a whole number of 64 bits, not {_shown(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise error(f"{where} must be a finite number, not {value}")
    if isinstance(value, str) and not _encodable(value):
        raise error(f"{where} must be text, not {_shown(value)}, which UTF-8 cannot encode")
    return value


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON allows and no terminal can print
        return False
    return True


def _shown(value: Any) -> str:
    return _shortened(short_repr(value))


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _unique(pairs: List[Any]) -> Dict[str, Any]:
    result: Dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"key {short_repr(key)} is given twice")
        result[key] = value
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
