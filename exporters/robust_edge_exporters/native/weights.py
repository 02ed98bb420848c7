"""The weights file: a checked header, then each layer's values, the coded positions of its nonzeros, and its bias.

csrc/weights_file.h describes the format. The nonzeros of a layer are stored in segments: a segment is a sequence of
entries that are added to the same sum; an entry is a value and its position in a block of input channels.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robust_edge_exporters.native.c_source import c_constant, c_text
from robust_edge_exporters.native.geometry import UNIT

MAGIC = c_text("weights_file.h", "MAGIC").encode("ascii")
FORMAT_VERSION = c_constant("weights_file.h", "FORMAT_VERSION")
HEADER_BYTES = c_constant("weights_file.h", "HEADER_BYTES")
CACHE_LINE_BYTES = 64
ALIGNED_FROM_BYTES = 4096  # sections of this size and more begin at a cache line
ESCAPE = 255  # a byte of a number that goes on in the next byte
WORD_BYTES = 4
OFFSETS = 65536  # values of a 16-bit offset

ValueType = type[np.float32] | type[np.float16] | type[np.int8]

assert HEADER_BYTES % CACHE_LINE_BYTES == 0
assert UNIT * 4 == CACHE_LINE_BYTES


@dataclass(frozen=True)
class Segments:
    """The C struct segments, with which a context checks the positions of a layer and expands them to offsets.

    A position is `channel * taps + tap`, with the input channel counted within the block, or just the channel if each
    segment belongs to one tap. Its offset is `channel * channel_offset + tap_offsets[tap]`, in floats or, in kernel
    `columns`, in units.

    Attributes:
        coded: byte offset of the coded positions in the weights file.
        coded_bytes: length of the coded positions in bytes.
        entries: number of entries of all segments.
        segments: number of segments of the layer.
        per_block: number of segments of each block.
        blocks: number of blocks per group.
        positions: number of positions of a block.
        last_positions: number of positions of the last block of a group.
        by_tap: whether segment i belongs to tap i modulo `len(tap_offsets)`.
    """

    coded: int
    coded_bytes: int
    entries: int
    segments: int
    per_block: int
    blocks: int
    positions: int
    last_positions: int
    channel_offset: int
    tap_offsets: tuple[int, ...]
    by_tap: bool = False

    def __post_init__(self) -> None:
        taps = 1 if self.by_tap else len(self.tap_offsets)
        assert ((self.positions - 1) // taps) * self.channel_offset + max(self.tap_offsets) < OFFSETS


@dataclass(frozen=True)
class Sections:
    """Byte offsets of one layer's sections in the weights file, and its segments if only nonzeros are stored."""

    values: int
    bias: int
    segments: Segments | None


class Packer:
    """Builds a weights file section by section."""

    def __init__(self, value_type: ValueType) -> None:
        self.value_type = value_type
        self.data = bytearray(HEADER_BYTES)

    def append(self, array: np.ndarray[Any, Any], align: int = 1) -> int:
        """Append an array in little-endian order and return its byte offset; large arrays start at a cache line.

        Args:
            array: of numbers or of records of them.
            align: the offset is a multiple of this and of the size of an element.
        """
        align = CACHE_LINE_BYTES if array.nbytes >= ALIGNED_FROM_BYTES else max(align, array.dtype.itemsize)
        self.data.extend(b"\0" * (-len(self.data) % align))
        offset = len(self.data)
        self.data.extend(array.astype(array.dtype.newbyteorder("<")).tobytes())
        return offset

    def values(self, array: np.ndarray[Any, Any]) -> int:
        """Append an array in the file's value type and return its byte offset; bytes are read by fours."""
        if self.value_type is np.int8:
            return self.append(np.ascontiguousarray(array).view(np.int8), WORD_BYTES)
        return self.append(array.astype(self.value_type))

    def finish(self, model: int) -> bytes:
        """The bytes of the file with its header, in which `model` is the number that also appears in the code.

        Padding at the end allows the code to read whole vectors beyond the last value.
        """
        self.data.extend(b"\0" * (-len(self.data) % CACHE_LINE_BYTES + CACHE_LINE_BYTES))
        words = np.frombuffer(self.data, "<u4", offset=HEADER_BYTES).astype(np.uint64)
        weights = np.arange(1, words.size + 1, dtype=np.uint64)
        sums = int(words.sum(dtype=np.uint64)), int((words * weights).sum(dtype=np.uint64))
        width = np.dtype(self.value_type).itemsize
        header = struct.pack("<8sIIQQQQ", MAGIC, FORMAT_VERSION, width, len(self.data), model, *sums)
        self.data[: len(header)] = header
        return bytes(self.data)


def stored_type(data: bytes) -> ValueType | None:
    """The type of the values of a weights file; None if its header is not one of this version."""
    if len(data) < HEADER_BYTES:
        return None
    magic, version, width = struct.unpack_from("<8sII", data)
    if (magic, version) != (MAGIC, FORMAT_VERSION):
        return None
    types: dict[int, ValueType] = {4: np.float32, 2: np.float16, 1: np.int8}
    return types.get(width)


def coded(counts: np.ndarray[Any, Any], positions: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Encode segments: for each its number of entries, then for each entry the distance to the previous one minus 1.

    A number n is encoded as n // 255 bytes of value 255 and one byte of value n % 255.

    Args:
        counts: number of entries of each segment.
        positions: positions of all entries, increasing within a segment.
    """
    heads = np.cumsum(counts) - counts + np.arange(counts.size)
    numbers = np.empty(counts.size + positions.size, np.int64)
    is_head = np.zeros(numbers.size, bool)
    is_head[heads] = True
    numbers[~is_head] = positions
    numbers[heads] = -1  # the position before the first
    gaps = np.diff(numbers, prepend=-1) - 1
    gaps[heads] = counts
    ends = np.cumsum(gaps // ESCAPE + 1)
    stream = np.full(int(ends[-1]), ESCAPE, np.uint8)
    stream[ends - 1] = gaps % ESCAPE
    return stream


def padded_to_multiple(kept: np.ndarray[Any, Any], multiple: int) -> np.ndarray[Any, Any]:
    """Add unused positions to each segment so that its length is divisible by `multiple`, if it has enough of them.

    Args:
        kept: (segments, positions) bool: which positions have an entry.
        multiple: of which each length becomes a multiple.
    """
    free, missing = ~kept, -kept.sum(axis=1) % multiple
    missing[missing > free.sum(axis=1)] = 0
    filled: np.ndarray[Any, Any] = kept | (free & (np.cumsum(free, axis=1) <= missing[:, None]))
    return filled


def nonzero(block: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """(segments, positions) bool: where a weight is not zero."""
    kept: np.ndarray[Any, Any] = (block != 0).reshape(*block.shape[:2], -1).any(axis=2)
    return kept


def pack_segments(
    packer: Packer,
    bias: np.ndarray[Any, Any],
    blocks: Sequence[np.ndarray[Any, Any]],
    *,
    blocks_per_group: int,
    channel_offset: int,
    tap_offsets: tuple[int, ...],
    by_tap: bool = False,
    multiple: int = 1,
) -> Sections:
    """Append the nonzeros and the bias of a layer to a weights file.

    Args:
        packer: the weights file.
        bias: (output channels,) bias, or records with it.
        blocks: (segments, positions) weights of each group and block, or (segments, positions, n) with n at each
            position; integers of 32 bits each hold four bytes.
        blocks_per_group: number of blocks per group.
        channel_offset, tap_offsets, by_tap: as in `Segments`.
        multiple: segments are padded with zeros to multiples of this length.
    """
    kept = [padded_to_multiple(nonzero(block), multiple) for block in blocks]
    values = np.concatenate([block[mask] for block, mask in zip(blocks, kept, strict=True)])
    stream = coded(np.concatenate([m.sum(axis=1) for m in kept]), np.concatenate([np.nonzero(m)[1] for m in kept]))
    segments = sum(len(block) for block in blocks)
    return Sections(
        packer.values(values),
        packer.append(bias),
        Segments(
            packer.append(stream), stream.size, len(values), segments, len(blocks[0]), blocks_per_group,
            blocks[0].shape[1], blocks[-1].shape[1], channel_offset, tap_offsets, by_tap,
        ),
    )  # fmt: skip
