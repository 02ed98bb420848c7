"""The weights file: sections of values, 16-bit offsets, counts and biases behind a checked header."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.cost import DENSE_CHANNELS
from robust_edge_exporters.native.plan import Kernel, Layer, Plan
from robust_edge_exporters.native.tiling import UNIT, Tiling, whole_units

MAGIC = b"RE-SPARS"
FORMAT_VERSION = 1
HEADER_BYTES = 64
ALIGN = 64


@dataclass(frozen=True)
class Lists:
    """What the C side needs to check and index a sparse layer's lists."""

    lists: int
    limit: int
    last_limit: int
    per_block: int
    blocks: int


@dataclass(frozen=True)
class Sections:
    """Byte offsets of one layer's sections; `values_count` counts stored values, dense padding included."""

    values: int
    offsets: int
    counts: int
    bias: int
    values_count: int
    lists: Lists | None


class Packer:
    """Appends aligned sections and remembers nothing but the bytes."""

    def __init__(self, value_type: type[np.floating[Any]]) -> None:
        self.value_type = value_type
        self.data = bytearray(HEADER_BYTES)

    def append(self, array: np.ndarray[Any, Any]) -> int:
        """Byte offset of `array`, written little-endian."""
        self.data.extend(b"\0" * (-len(self.data) % ALIGN))
        at = len(self.data)
        self.data.extend(array.astype(array.dtype.newbyteorder("<")).tobytes())
        return at

    def values(self, array: np.ndarray[Any, Any]) -> int:
        """Byte offset of `array` in the file's value type."""
        return self.append(array.astype(self.value_type))

    def finish(self, model: int) -> bytes:
        """The file, its header filled in; `model` ties it to the code."""
        self.data.extend(b"\0" * (-len(self.data) % ALIGN or ALIGN))
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


def tap_rows(op: ir.Conv, tiling: Tiling) -> np.ndarray[Any, Any]:
    """Offset of each (channel of a block, tap), in the order of the weight's trailing axes."""
    channels = np.arange(tiling.block)[:, None] * tiling.channel_floats
    return np.asarray(channels + np.asarray(tiling.tap_offsets)[None, :], np.uint16)


def pack_sparse(packer: Packer, op: ir.Conv, tiling: Tiling) -> Sections:
    """Lists in the order group, block, output channel; within a list by channel, then tap."""
    outputs, inputs = op.weight.shape[0] // op.groups, op.weight.shape[1]
    weight = op.weight.reshape(op.groups, outputs, inputs, -1)
    rows = tap_rows(op, tiling)
    values, offsets, counts = [], [], []
    for group in weight:
        for first in range(0, inputs, tiling.block):
            part = group[:, first : first + tiling.block]
            kept = part != 0
            values.append(part[kept])
            offsets.append(np.broadcast_to(rows[: part.shape[1]], part.shape)[kept])
            counts.append(kept.sum(axis=(1, 2)))
    blocks = -(-inputs // tiling.block)
    return Sections(
        packer.values(np.concatenate(values)),
        packer.append(np.concatenate(offsets)),
        packer.append(np.concatenate(counts).astype(np.uint16)),
        packer.append(op.bias),
        sum(v.size for v in values),
        Lists(
            op.groups * blocks * outputs,
            tiling.limit(tiling.block),
            tiling.limit(inputs - (blocks - 1) * tiling.block),
            outputs,
            blocks,
        ),
    )


def pack_columns(packer: Packer, op: ir.Conv, tiling: Tiling) -> Sections:
    """Lists in the order group, block, output channel, kernel column; within a list by channel, then row."""
    outputs, (inputs, _, width) = op.weight.shape[0] // op.groups, op.weight.shape[1:]
    weight = op.weight.reshape(op.groups, outputs, *op.weight.shape[1:]).transpose(0, 1, 4, 2, 3)
    rows = tap_rows(op, tiling)
    firsts = range(0, inputs, tiling.block)
    blocks = [group[:, :, first : first + tiling.block] for group in weight for first in firsts]
    values = np.concatenate([part[part != 0] for part in blocks])
    offsets = [np.broadcast_to(rows[: part.shape[2]], part.shape)[part != 0] for part in blocks]
    lists = outputs * width
    return Sections(
        packer.values(values),
        packer.append(np.concatenate(offsets)),
        packer.append(np.concatenate([(part != 0).sum(axis=(2, 3)).ravel() for part in blocks]).astype(np.uint16)),
        packer.append(op.bias),
        values.size,
        Lists(len(blocks) * lists, tiling.limit(tiling.block), tiling.limit(blocks[-1].shape[2]), lists, len(firsts)),
    )


def pack_taps(packer: Packer, op: ir.Conv, tiling: Tiling) -> Sections:
    """Lists in the order block, output channel, tap; an offset names the input channel."""
    outputs, inputs = op.weight.shape[:2]
    weight = op.weight.reshape(outputs, inputs, -1).transpose(0, 2, 1)
    blocks = [weight[:, :, first : first + tiling.block] for first in range(0, inputs, tiling.block)]
    rows = tap_rows(op, tiling).T
    offsets = [np.broadcast_to(rows[:, : part.shape[2]], part.shape)[part != 0] for part in blocks]
    values = np.concatenate([part[part != 0] for part in blocks])
    lists = outputs * weight.shape[1]
    return Sections(
        packer.values(values),
        packer.append(np.concatenate(offsets).astype(np.uint16)),
        packer.append(np.concatenate([(part != 0).sum(axis=2).ravel() for part in blocks]).astype(np.uint16)),
        packer.append(op.bias),
        values.size,
        Lists(len(blocks) * lists, tiling.limit(tiling.block), tiling.limit(blocks[-1].shape[2]), lists, len(blocks)),
    )


def pack_dense(packer: Packer, op: ir.Conv, tiling: Tiling) -> Sections:
    """Values as [group][block][channels / 6][tap][6], padded with zero channels."""
    outputs, inputs = op.weight.shape[0] // op.groups, op.weight.shape[1]
    padded = -(-outputs // DENSE_CHANNELS) * DENSE_CHANNELS
    weight = np.zeros((op.groups, padded, inputs, op.weight[0, 0].size), np.float32)
    weight[:, :outputs] = op.weight.reshape(op.groups, outputs, inputs, -1)
    parts = []
    for group in weight:
        for first in range(0, inputs, tiling.block):
            part = group[:, first : first + tiling.block].reshape(-1, DENSE_CHANNELS, part_taps(group, first, tiling))
            parts.append(part.transpose(0, 2, 1).ravel())
    return Sections(
        packer.values(np.concatenate(parts)),
        packer.append(tap_rows(op, tiling).ravel()),
        0,
        packer.append(op.bias),
        sum(part.size for part in parts),
        None,
    )


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
        return Sections(packer.values(weight), 0, 0, packer.append(op.bias), weight.size, None)
    kept = op.weight != 0
    return Sections(
        packer.values(op.weight[kept]),
        packer.append(np.nonzero(kept)[1].astype(np.uint16)),
        packer.append(kept.sum(axis=1).astype(np.uint16)),
        packer.append(op.bias),
        int(kept.sum()),
        Lists(outputs, inputs - 1, inputs - 1, outputs, 1),
    )


PACKERS = {
    Kernel.SPARSE: pack_sparse,
    Kernel.COLUMNS: pack_columns,
    Kernel.TAPS: pack_taps,
    Kernel.DEPTHWISE: pack_sparse,
    Kernel.DENSE: pack_dense,
}

assert HEADER_BYTES % ALIGN == 0
assert UNIT * 4 == ALIGN
