"""The weights file: each layer's values, the lists that say where they belong, and biases behind a checked header."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.cost import DENSE_CHANNELS
from robust_edge_exporters.native.plan import Kernel, Layer, Plan
from robust_edge_exporters.native.tiling import OFFSETS, UNIT, Tiling, column_lists, whole_units

MAGIC = b"RE-SPARS"
FORMAT_VERSION = 4
HEADER_BYTES = 64
ALIGN = 64
WORTH_ALIGNING = 4096  # bytes from which a section begins at a cache line
ESCAPE = 255  # a byte of a number that goes on in the next
TAP_RUN = 4  # entries that the kernel that sums by tap reads at a time; what is left of a list costs a wrong guess


@dataclass(frozen=True)
class Lists:
    """What the C side needs to check a layer's lists and to make offsets of them.

    An entry is a place: input channel of the block times `taps` plus tap, or the input channel alone where the list
    itself stands for a tap. Its offset is `channel * channel_offset + tap_offsets[tap]`, in floats or, where the kernel
    sums by kernel column, in units.

    Attributes:
        coded: byte offset of the coded lists; `coded_bytes` long.
        entries: of all lists.
        lists: how many; `per_block` of each of a group's `blocks`.
        places: of a block; `last_places` of a group's last block.
        by_tap: list i stands for tap i modulo `len(tap_offsets)`.
    """

    coded: int
    coded_bytes: int
    entries: int
    lists: int
    per_block: int
    blocks: int
    places: int
    last_places: int
    channel_offset: int
    tap_offsets: tuple[int, ...]
    by_tap: bool = False

    def __post_init__(self) -> None:
        taps = 1 if self.by_tap else len(self.tap_offsets)
        assert ((self.places - 1) // taps) * self.channel_offset + max(self.tap_offsets) < OFFSETS


@dataclass(frozen=True)
class Sections:
    """Byte offsets of one layer's sections."""

    values: int
    bias: int
    lists: Lists | None


class Packer:
    """Appends aligned sections and remembers nothing but the bytes."""

    def __init__(self, value_type: type[np.floating[Any]]) -> None:
        self.value_type = value_type
        self.data = bytearray(HEADER_BYTES)

    def append(self, array: np.ndarray[Any, Any]) -> int:
        """Byte offset of `array`, written little-endian; large ones begin at a cache line."""
        align = ALIGN if array.nbytes >= WORTH_ALIGNING else array.dtype.itemsize
        self.data.extend(b"\0" * (-len(self.data) % align))
        at = len(self.data)
        self.data.extend(array.astype(array.dtype.newbyteorder("<")).tobytes())
        return at

    def values(self, array: np.ndarray[Any, Any]) -> int:
        """Byte offset of `array` in the file's value type."""
        return self.append(array.astype(self.value_type))

    def finish(self, model: int) -> bytes:
        """The file, its header filled in; `model` ties it to the code. Vectors may be read beyond the last value."""
        self.data.extend(b"\0" * (-len(self.data) % ALIGN + ALIGN))
        words = np.frombuffer(self.data, "<u4", offset=HEADER_BYTES).astype(np.uint64)
        places = np.arange(1, words.size + 1, dtype=np.uint64)
        sums = int(words.sum(dtype=np.uint64)), int((words * places).sum(dtype=np.uint64))
        width = np.dtype(self.value_type).itemsize
        header = struct.pack("<8sIIQQQQ", MAGIC, FORMAT_VERSION, width, len(self.data), model, *sums)
        self.data[: len(header)] = header
        return bytes(self.data)


def pack(plan: Plan, value_type: type[np.floating[Any]], model: int) -> tuple[bytes, dict[int, Sections]]:
    """The weights file of `plan`, and each layer's sections by the layer's index."""
    packer, sections = Packer(value_type), {}
    for index, layer in enumerate(plan.layers):
        if isinstance(layer.op, ir.Conv):
            assert layer.tiling is not None
            assert layer.kernel is not None
            sections[index] = PACKERS[layer.kernel](packer, layer.op, layer.tiling)
        elif isinstance(layer.op, ir.Linear):
            sections[index] = pack_linear(packer, layer)
    return packer.finish(model), sections


def coded(counts: np.ndarray[Any, Any], places: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Lists as bytes: for each its count, then for each entry how many places lie between it and the one before.

    A number is as many bytes of 255 as it holds 255s, and a last byte for the rest.

    Args:
        counts: entries of each list.
        places: of all entries, ascending within a list.
    """
    heads = np.cumsum(counts) - counts + np.arange(counts.size)
    numbers = np.empty(counts.size + places.size, np.int64)
    is_head = np.zeros(numbers.size, bool)
    is_head[heads] = True
    numbers[~is_head] = places
    numbers[heads] = -1  # the place before the first
    gaps = np.diff(numbers, prepend=-1) - 1
    gaps[heads] = counts
    ends = np.cumsum(gaps // ESCAPE + 1)
    stream = np.full(int(ends[-1]), ESCAPE, np.uint8)
    stream[ends - 1] = gaps % ESCAPE
    return stream


def whole_runs(kept: np.ndarray[Any, Any], run: int) -> np.ndarray[Any, Any]:
    """`kept`, (lists, places), with the first free places added that make a list whole runs; full lists stay."""
    free, missing = ~kept, -kept.sum(axis=1) % run
    missing[missing > free.sum(axis=1)] = 0
    filled: np.ndarray[Any, Any] = kept | (free & (np.cumsum(free, axis=1) <= missing[:, None]))
    return filled


def pack_lists(
    packer: Packer,
    bias: np.ndarray[Any, Any],
    parts: Sequence[np.ndarray[Any, Any]],
    *,
    blocks: int,
    channel_offset: int,
    tap_offsets: tuple[int, ...],
    by_tap: bool = False,
    run: int = 1,
) -> Sections:
    """A sparse layer.

    Args:
        packer: appended to.
        bias: of each output channel.
        parts: for each group and block, (lists, places) weights.
        blocks: of a group.
        channel_offset, tap_offsets, by_tap: as in `Lists`.
        run: lists are so many entries long, or a multiple of it; zeros fill them up.
    """
    kept = [whole_runs(part != 0, run) for part in parts]
    values = np.concatenate([part[mask] for part, mask in zip(parts, kept, strict=True)])
    stream = coded(np.concatenate([m.sum(axis=1) for m in kept]), np.concatenate([np.nonzero(m)[1] for m in kept]))
    lists = sum(len(part) for part in parts)
    return Sections(
        packer.values(values),
        packer.append(bias),
        Lists(
            packer.append(stream), stream.size, values.size, lists, len(parts[0]), blocks,
            parts[0].shape[1], parts[-1].shape[1], channel_offset, tap_offsets, by_tap,
        ),
    )  # fmt: skip


def blocks_of(op: ir.Conv, tiling: Tiling) -> tuple[list[ir.Array], int]:
    """(output channels, channels of the block, height, width) weights of each group and block; blocks of a group."""
    groups = op.weight.reshape(op.groups, -1, *op.weight.shape[1:])
    firsts = range(0, op.weight.shape[1], tiling.block)
    return [group[:, first : first + tiling.block] for group in groups for first in firsts], len(firsts)


def pack_sparse(packer: Packer, op: ir.Conv, tiling: Tiling) -> Sections:
    """Lists in the order group, block, output channel; within a list by channel, then tap."""
    parts, blocks = blocks_of(op, tiling)
    return pack_lists(
        packer, op.bias, [part.reshape(len(part), -1) for part in parts],
        blocks=blocks, channel_offset=tiling.channel_offset, tap_offsets=tiling.tap_offsets,
    )  # fmt: skip


def pack_columns(packer: Packer, op: ir.Conv, tiling: Tiling) -> Sections:
    """Lists in the order group, block, output channel, kernel column; within a list by channel, then row.

    At stride 2 two lists for an output channel, the first column's and the others': by channel, row, then pixel, even
    or odd.
    """
    parts, blocks = blocks_of(op, tiling)
    by_column = [part.transpose(0, 3, 1, 2) for part in parts]
    if column_lists(op.window) == 2:
        moved = [np.stack([np.zeros_like(part[:, 0]), part[:, 0]], axis=-1) for part in by_column]
        kept = [np.stack([part[:, 1], part[:, 2]], axis=-1) for part in by_column]
        by_column = [np.stack(pair, axis=1) for pair in zip(moved, kept, strict=True)]
    return pack_lists(
        packer, op.bias, [part.reshape(part.shape[0] * part.shape[1], -1) for part in by_column],
        blocks=blocks, channel_offset=tiling.channel_offset, tap_offsets=tiling.tap_offsets,
    )  # fmt: skip


def pack_taps(packer: Packer, op: ir.Conv, tiling: Tiling) -> Sections:
    """Lists in the order block, output channel, tap; within a list by channel, zeros filling up the last run."""
    parts, blocks = blocks_of(op, tiling)
    return pack_lists(
        packer, op.bias,
        [part.reshape(*part.shape[:2], -1).transpose(0, 2, 1).reshape(-1, part.shape[1]) for part in parts],
        blocks=blocks, channel_offset=tiling.channel_offset, tap_offsets=tiling.tap_offsets, by_tap=True, run=TAP_RUN,
    )  # fmt: skip


def pack_dense(packer: Packer, op: ir.Conv, tiling: Tiling) -> Sections:
    """Values as [group][block][channels / 6][tap][6], padded with zero channels; one list of all places of a block."""
    outputs, inputs = op.weight.shape[0] // op.groups, op.weight.shape[1]
    padded = -(-outputs // DENSE_CHANNELS) * DENSE_CHANNELS
    weight = np.zeros((op.groups, padded, inputs, op.weight[0, 0].size), np.float32)
    weight[:, :outputs] = op.weight.reshape(op.groups, outputs, inputs, -1)
    parts = []
    for group in weight:
        for first in range(0, inputs, tiling.block):
            part = group[:, first : first + tiling.block].reshape(-1, DENSE_CHANNELS, part_taps(group, first, tiling))
            parts.append(part.transpose(0, 2, 1).ravel())
    places = min(tiling.block, inputs) * len(tiling.tap_offsets)
    stream = coded(np.array([places]), np.arange(places))
    return Sections(
        packer.values(np.concatenate(parts)),
        packer.append(op.bias),
        Lists(
            packer.append(stream), stream.size, places, 1, 1, 1, places, places,
            tiling.channel_offset, tiling.tap_offsets,
        ),
    )  # fmt: skip


def part_taps(group: np.ndarray[Any, Any], first: int, tiling: Tiling) -> int:
    """Packed rows of the block that begins at channel `first`."""
    return int(min(tiling.block, group.shape[1] - first) * group.shape[2])


def pack_linear(packer: Packer, layer: Layer) -> Sections:
    """Sparse: lists by output. Dense: rows padded to whole units."""
    op = layer.op
    assert isinstance(op, ir.Linear)
    outputs, inputs = op.weight.shape
    if layer.kernel is Kernel.DENSE:
        weight = np.zeros((outputs, whole_units(inputs)), np.float32)
        weight[:, :inputs] = op.weight
        return Sections(packer.values(weight), packer.append(op.bias), None)
    return pack_lists(packer, op.bias, [op.weight], blocks=1, channel_offset=1, tap_offsets=(0,))


PACKERS = {
    Kernel.SPARSE: pack_sparse,
    Kernel.COLUMNS: pack_columns,
    Kernel.TAPS: pack_taps,
    Kernel.DEPTHWISE: pack_sparse,
    Kernel.DENSE: pack_dense,
}

assert HEADER_BYTES % ALIGN == 0
assert UNIT * 4 == ALIGN
