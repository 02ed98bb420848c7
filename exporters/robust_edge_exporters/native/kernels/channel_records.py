"""How the weights file holds the numbers of a layer's output channels; csrc/requantise.h has the C structs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from robust_edge_exporters.native.c_source import c_constant
from robust_edge_exporters.native.int8 import arithmetic
from robust_edge_exporters.native.int8.arithmetic import INT32, LARGEST_DOWN, Integers, Requantisation, bias_shift, half
from robust_edge_exporters.native.int8.ops import WORD, QuantConv, QuantLinear, requantisation_fields
from robust_edge_exporters.native.program import Program
from robust_edge_exporters.native.weights import Sections

RECORD = np.dtype([("bias", "<i2"), ("packed", "<u2")])
WIDE_RECORD = np.dtype([("bias", "<i4"), ("packed", "<u2"), ("unused", "<u2")])
"""The C structs record and wide_record."""
SIGNIFICAND_BITS = c_constant("requantise.h", "SIGNIFICAND_BITS")
SHIFT_BITS = c_constant("requantise.h", "SHIFT_BITS")
SIGN = 1 << SHIFT_BITS - 1  # of a shift

assert c_constant("requantise.h", "BIAS_BITS") == arithmetic.BIAS_BITS
assert (arithmetic.SIGNIFICAND_BITS, *arithmetic.SHIFTS) == (SIGNIFICAND_BITS, -SIGN, SIGN - 1)


def channel_records(r: Requantisation, outputs: int) -> np.ndarray[Any, Any]:
    """(outputs,) structs record, or wide_record; those beyond the channels of the layer have zeros."""
    starts = r.bias - half(r.shift)
    records = np.zeros(outputs, WIDE_RECORD if r.wide else RECORD)
    records["bias"][: len(starts)] = starts if r.wide else starts >> bias_shift(r.shift, r.down)
    records["packed"][: len(starts)] = r.significand | (r.shift & 2 * SIGN - 1) << SIGNIFICAND_BITS
    return records


def read_records(r: Requantisation, records: np.ndarray[Any, Any], down: int, residual: int) -> Requantisation:
    """The requantisation that records hold, with what tables of the source hold; the rest is that of `r`.

    Raises:
        ValueError: no export writes such tables.
    """
    if not 1 <= down <= LARGEST_DOWN or not 0 <= residual <= INT32:
        raise ValueError(f"shifts of {down} bits and multipliers of {residual}")
    packed: Integers = records["packed"].astype(np.int64)
    shift = (packed >> SIGNIFICAND_BITS ^ SIGN) - SIGN
    wide = records.dtype == WIDE_RECORD
    bias = (records["bias"].astype(np.int64) << (0 if wide else bias_shift(shift, down))) + half(shift)
    significand = packed & (1 << SIGNIFICAND_BITS) - 1
    return replace(r, bias=bias, significand=significand, shift=shift, down=down, residual=residual, wide=wide)


def layer_weights(program: Program, name: str, sections: Sections) -> dict[str, object]:
    """The fields that say where the weights of a layer lie, except its records."""
    if sections.segments is None:
        return {"values": sections.values}
    return {field: value for field, value in program.weights(name, sections).items() if field != "bias"}


def layer_fields(
    program: Program,
    name: str,
    op: QuantConv | QuantLinear,
    sections: Sections,
    *,
    together: int,
    starts: object = 0,
    blocks: int = 0,
) -> dict[str, object]:
    """The C struct requantisation of a layer, field by field; adds its channels to what re_create reads.

    Args:
        program: the generated C.
        name: of the layer.
        op: the layer. One that computes logits requantises nothing, but has records and channels.
        sections: where its weights lie.
        together: output channels whose blocks are stored together.
        starts: index of the first start of the layer's segments.
        blocks: of the channels that are stored together, where they have no segments.
    """
    word = WORD if isinstance(op, QuantConv) else 1  # planes hold whole words of channels
    channels = -(-len(op.weight) // word) * word
    segments = 0 if sections.segments is None else sections.segments.segments * together // channels
    read: dict[str, object] = {"requantisation.records": sections.bias}
    if op.requantisation is not None:
        read |= {"requantisation.down": op.requantisation.down, "requantisation.wide": int(op.requantisation.wide)}
    places = {"values": sections.values, "together": together, "starts": starts, "segments": segments, "blocks": blocks}
    logits = {"logits": int(op.requantisation is None)}
    fields = read | {"requantisation.first_channel": program.layer_channels(name, channels, places | logits | read)}
    if op.requantisation is not None:
        fields |= requantisation_fields(op.requantisation)
    return fields
