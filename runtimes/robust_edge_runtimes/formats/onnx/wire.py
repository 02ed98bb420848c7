"""Parse the protocol buffer of an ONNX file without the onnx package, to find tensors stored in other files.

A tensor of an ONNX file may refer to another file that holds its values. No hash of a bundle covers that file, and
older backends follow the name out of the folder, so such an artifact is refused before it is loaded.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Dict, Iterator, Tuple, Union

Buffer = Union[bytes, mmap.mmap]

# Message to the fields (onnx.proto's numbers) that lead to tensors.
_NESTED: Dict[str, Dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


def has_external_data(path: Path) -> bool:
    """Whether any tensor of the ONNX file is stored in another file.

    Raises:
        ValueError: the bytes are not a protocol buffer's.
    """
    with path.open("rb") as file:
        if not path.stat().st_size:
            raise ValueError("the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _refers_to_a_file(data)


def _refers_to_a_file(data: Buffer) -> bool:
    pending = [("model", 0, len(data))]
    while pending:
        message, start, end = pending.pop()
        for field, wire, low, high in _fields(data, start, end):
            if message == "tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and high)):
                return True
            if wire == _LENGTH and field in _NESTED[message]:
                pending.append((_NESTED[message][field], low, high))
    return False


def _fields(data: Buffer, position: int, end: int) -> Iterator[Tuple[int, int, int, int]]:
    """(field, wire type, first byte, end) of each field; a varint's value stands in place of the end."""
    while position < end:
        tag, position = _varint(data, position, end)
        field, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            value, position = _varint(data, position, end)
            yield field, wire, position, value
            continue
        if wire == _LENGTH:
            size, position = _varint(data, position, end)
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            size = 8 if wire == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"wire type {wire} at byte {position}")
        if size > end - position:
            raise ValueError(f"a field of {size} bytes at byte {position} leaves its message")
        yield field, wire, position, position + size
        position += size


def _varint(data: Buffer, position: int, end: int) -> Tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            raise ValueError("a number is cut off")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError(f"a number of more than 10 bytes at byte {position}")
