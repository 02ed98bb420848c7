"""How the weights file holds the numbers of a layer's output channels; csrc/requantise.h has the C structs."""

from __future__ import annotations

from typing import Any

import numpy as np

from robust_edge_exporters.native.c_source import c_constant
from robust_edge_exporters.native.int8 import arithmetic
from robust_edge_exporters.native.int8.arithmetic import Integers, Requantisation, bias_units, half
from robust_edge_exporters.native.int8.ops import WORD, QuantConv, QuantLinear, requantisation_fields
from robust_edge_exporters.native.program import Program
from robust_edge_exporters.native.weights import Sections

RECORD = np.dtype([("bias", "<i2"), ("scale", "<u2")])
WIDE_RECORD = np.dtype([("bias", "<i4"), ("scale", "<u2"), ("unused", "<u2")])
"""The C structs record and wide_record."""
MULTIPLIER_BITS = c_constant("requantise.h", "MULTIPLIER_BITS")
SHIFT_BITS = 5

assert (MULTIPLIER_BITS, c_constant("requantise.h", "BIAS_BITS")) == (arithmetic.MULTIPLIER_BITS, arithmetic.BIAS_BITS)
assert arithmetic.SHIFTS == (-(1 << SHIFT_BITS - 1), (1 << SHIFT_BITS - 1) - 1)


def wide(r: Requantisation) -> bool:
    """Whether a bias is held in 32 bits, since those of all channels do not fit 16."""
    starts, units = r.bias - half(r.shift), bias_units(r.shift, r.down)
    held = starts >> units
    return bool((held << units != starts).any() or np.abs(held).max() >= 1 << arithmetic.BIAS_BITS)


def channel_records(r: Requantisation, outputs: int) -> np.ndarray[Any, Any]:
    """(outputs,) structs record, or wide_record; those beyond the channels of the layer have zeros."""
    starts, large = r.bias - half(r.shift), wide(r)
    records = np.zeros(outputs, WIDE_RECORD if large else RECORD)
    records["bias"][: len(starts)] = starts if large else starts >> bias_units(r.shift, r.down)
    records["scale"][: len(starts)] = r.factor | (r.shift & (1 << SHIFT_BITS) - 1) << MULTIPLIER_BITS
    return records


def read_records(r: Requantisation, records: np.ndarray[Any, Any], down: int, residual: int) -> Requantisation:
    """The requantisation that records hold, with what tables of the source hold; the rest is that of `r`."""
    scale: Integers = records["scale"].astype(np.int64)
    shift = (scale >> MULTIPLIER_BITS ^ 1 << SHIFT_BITS - 1) - (1 << SHIFT_BITS - 1)
    units = bias_units(shift, down) if records.dtype == RECORD else 0
    return Requantisation(
        bias=(records["bias"].astype(np.int64) << units) + half(shift),
        factor=scale & (1 << MULTIPLIER_BITS) - 1,
        shift=shift,
        down=down,
        zero=r.zero,
        residual=residual,
        residual_zero=r.residual_zero,
        lowest=r.lowest,
        highest=r.highest,
        table=r.table,
    )


def requantised(
    program: Program,
    name: str,
    op: QuantConv | QuantLinear,
    sections: Sections,
    *,
    together: int,
    starts: object = 0,
    blocks: int = 0,
) -> dict[str, object]:
    """The C struct requantisation of a layer, field by field; adds the sums of its weights to what re_create computes.

    Args:
        program: the generated C.
        name: of the layer.
        op: the layer, which is requantised.
        sections: where its weights lie.
        together: output channels whose blocks are stored together.
        starts: index of the first start of the layer's segments.
        blocks: of the channels that are stored together, where they have no segments.
    """
    assert op.requantisation is not None
    word = WORD if isinstance(op, QuantConv) else 1  # planes hold whole words of channels
    channels = -(-len(op.weight) // word) * word
    segments = 0 if sections.segments is None else sections.segments.segments * together // channels
    first = program.sum_weights(name, (sections.values, channels, together, starts, segments, blocks))
    records = {"records": sections.bias, "sums": first, "wide": int(wide(op.requantisation))}
    return requantisation_fields(op.requantisation) | {
        f"requantisation.{field}": value for field, value in records.items()
    }
