"""Seeded mutations of files: the same in every run, so that the number of a case says all about it."""

from __future__ import annotations

import copy
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

SEED = 20261124
FIRST, CASES = int(os.environ.get("FUZZ_FIRST", "0")), int(os.environ.get("FUZZ_CASES", "0"))
"""The first case and the number of cases of every reader; 0: as many as CI runs. `make fuzz` sets them."""
ODD = [
    None, True, 0, -1, 1 << 70, -0.0, 1e308, "", "\0", "a" * 5000, "../x", "/etc/passwd", "NaN", "é\ud800", [], {},
    [[]], {"a": {}}, [1, "x", None], "fp32", "onnx", "images", [None, 1, 4, 4], [0, 0, 0, 0], [-1], [1 << 40, 1, 1, 1],
]  # fmt: skip
SPLICES = [
    b"",
    b"\0",
    b"\xff",
    b'"',
    b"{",
    b"}",
    b"[" * 500,
    b"1e999",
    b"NaN",
    b"Infinity",
    b"PK\x03\x04",
    b"\x93NUMPY",
]
NUMBERS = (-(1 << 63), -1, 0, 1, 2, 3, 7, 255, 1 << 16, 1 << 31, (1 << 63) - 1)


def number_of(count: int, share: float = 1.0) -> int:
    """The number of cases where CI runs `count`, and `make fuzz` this share of all."""
    return round(CASES * share) if CASES else count


def numbers(count: int, share: float = 1.0) -> range:
    """The numbers of `number_of` cases."""
    return range(FIRST, FIRST + number_of(count, share))


def cases(chosen: Iterable[int]) -> Iterator[tuple[int, np.random.Generator]]:
    """(number, generator of its own) of each case."""
    for number in chosen:
        yield number, np.random.default_rng((SEED, number))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in nested JSON."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield from places(item, (*path, key))


def mutated(value: Any, random: np.random.Generator) -> Any:
    """One to three places changed, removed, doubled or renamed."""
    value = json.loads(json.dumps(value))
    for _ in range(random.integers(1, 4)):
        path = list(places(value))[1:]
        if not path:
            break
        *above, key = path[random.integers(len(path))]
        parent = value
        for step in above:
            parent = parent[step]
        kind = random.integers(4)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[f"{key}x"] = parent.pop(key)
        elif kind == 2 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        else:
            parent[key] = copy.deepcopy(ODD[random.integers(len(ODD))])  # which a later change may change
    return value


def spliced(blob: bytes, random: np.random.Generator) -> bytes:
    """Bytes cut out, put in, flipped or repeated somewhere."""
    data = bytearray(blob)
    for _ in range(random.integers(1, 4)):
        offset = int(random.integers(len(data) + 1))
        kind = random.integers(4)
        if kind == 0:
            del data[offset : offset + int(random.integers(1, 64))]
        elif kind == 1:
            data[offset:offset] = SPLICES[random.integers(len(SPLICES))]
        elif kind == 2 and offset < len(data):
            data[offset] ^= 1 << int(random.integers(8))
        else:
            data[offset:offset] = data[offset : offset + int(random.integers(1, 64))]
    return bytes(data)


def odd_json(blob: bytes, random: np.random.Generator) -> bytes:
    """JSON, or lines of JSON, whose values are odd; one in four has odd bytes."""
    if random.integers(4) == 0:
        return spliced(blob, random)
    try:
        return json.dumps(mutated(json.loads(blob), random)).encode()
    except ValueError:
        lines = blob.splitlines()
        row = int(random.integers(len(lines)))
        lines[row] = json.dumps(mutated(json.loads(lines[row]), random)).encode()
        return b"\n".join(lines)


def odd_zip(blob: bytes, random: np.random.Generator) -> bytes:
    """A zip file of which a member has odd bytes and a correct checksum; one in four has odd bytes anywhere."""
    if random.integers(4) == 0:
        return spliced(blob, random)
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(blob)) as old, zipfile.ZipFile(written, "w") as new:
        names = old.namelist()
        chosen = names[random.integers(len(names))]
        for name in names:
            data = old.read(name)
            new.writestr(name, spliced(data, random) if name == chosen else data)
    return written.getvalue()


def odd_tensors(blob: bytes, random: np.random.Generator) -> bytes:
    """A safetensors file whose header has odd values and its correct length; one in four has odd bytes anywhere."""
    if random.integers(4) == 0:
        return spliced(blob, random)
    (length,) = struct.unpack_from("<Q", blob)
    header = json.loads(blob[8 : 8 + length])
    if "packed" in header.get("__metadata__", {}) and random.integers(2):
        packed = mutated(json.loads(header["__metadata__"]["packed"]), random)
        header["__metadata__"]["packed"] = json.dumps(packed)
    else:
        header = mutated(header, random)
    written = json.dumps(header).encode()
    return struct.pack("<Q", len(written)) + written + blob[8 + length :]


def odd_graph(blob: bytes, random: np.random.Generator) -> bytes:
    """An ONNX file whose nodes, attributes, tensors or ports are odd; one in four has odd bytes anywhere."""
    if random.integers(4) == 0:
        return spliced(blob, random)
    import onnx

    program = onnx.load_from_string(blob)
    for _ in range(random.integers(1, 4)):
        _change_graph(program.graph, random)
    return bytes(program.SerializeToString())


def _change_graph(graph: Any, random: np.random.Generator) -> None:
    kind, kinds = random.integers(6), sorted({node.op_type for node in graph.node} | {"Loop", "Shape", "NoSuch"})
    node = graph.node[random.integers(len(graph.node))]
    tensor = graph.initializer[random.integers(len(graph.initializer))]
    number = NUMBERS[random.integers(len(NUMBERS))]
    names = [name for item in graph.node for name in (*item.input, *item.output)]
    if kind == 0:
        node.op_type = kinds[random.integers(len(kinds))]
    elif kind == 1 and node.attribute:
        attribute = node.attribute[random.integers(len(node.attribute))]
        if attribute.ints:
            attribute.ints[random.integers(len(attribute.ints))] = number
        else:
            attribute.i = number
    elif kind == 2 and tensor.dims:
        tensor.dims[random.integers(len(tensor.dims))] = number
    elif kind == 3:
        tensor.data_type = int(random.integers(24))
    elif kind == 4 and node.input:
        node.input[random.integers(len(node.input))] = names[random.integers(len(names))]
    else:
        shape = graph.input[0].type.tensor_type.shape.dim
        shape[random.integers(len(shape))].dim_value = number


def packed_by_hand(members, *, behind=b"", extra=lambda size, packed: b""):
    """An archive as numpy writes it, with bytes behind the streams of its members or in their extra fields."""
    body, directory = b"", b""
    for name, data in members.items():
        stream = zlib.compressobj(wbits=-15)
        packed, path = stream.compress(data) + stream.flush() + behind, name.encode()
        facts = struct.pack("<5H3I", 20, 0, 8, 0, 33, zlib.crc32(data), len(packed), len(data))
        field = extra(len(data), len(packed))
        directory += b"PK\1\2" + struct.pack("<H", 20) + facts
        directory += struct.pack("<5H2I", len(path), 0, 0, 0, 0, 0, len(body)) + path
        body += b"PK\3\4" + facts + struct.pack("<2H", len(path), len(field)) + path + field + packed
    end = struct.pack("<4H2IH", 0, 0, len(members), len(members), len(directory), len(body), 0)
    return body + directory + b"PK\5\6" + end
