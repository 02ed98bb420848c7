"""The arithmetic of the int8 engine, which docs/int8-engine.md specifies: its numbers and its rounding rule.

An activation is a code q of 8 bits, 0 to 255, that stands for scale * (q - zero). A weight is a code of -64 to 64 that
stands for scale * code, with one scale per output channel. So two products of an activation and a weight fit a signed
integer of 16 bits (2 * 255 * 64 = 32,640), which CPUs without an 8-bit dot product add them in. Sums have 32 bits and
never overflow, which is checked here. So all instruction sets compute the same integers.

Everything that is rounded is rounded to the nearest integer, and upwards where two are equally near: floor(x + 1/2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from robust_edge_exporters.quantisation import TooFewBits

LARGEST_CODE = 255
LARGEST_WEIGHT = 64
SIGNIFICAND_BITS = 11  # of a multiplier
SHIFTS = (-16, 15)  # of a channel: of its significand to the left, or of its sums to the right
BIAS_BITS = 15  # and a sign
LARGEST_DOWN = 30
INT32 = 2**31 - 1
LARGEST_START = 2.0**30
NOTHING = 2.0**-10  # of its bias: what the weights of a dead channel may add
DEAD_START = 2.0**20  # its bias in units that are chosen for the bias

Integers = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]
Table = Codes
Floats = npt.NDArray[Any]


def rounded(values: Any) -> Any:
    """The nearest integers as floats, floor(x + 1/2), computed in double precision."""
    return np.floor(np.asarray(values, np.float64) + 0.5)


@dataclass(frozen=True)
class Coding:
    """What the codes of a tensor stand for: scale * (code - zero).

    Attributes:
        scale: a positive float32 value.
        zero: the code of 0, from 0 to 255.
    """

    scale: float
    zero: int

    @staticmethod
    def of_range(lowest: float, highest: float) -> Coding:
        """The coding whose codes 0 and 255 stand for nearly `lowest` and `highest`; the range is widened to contain 0.

        Raises:
            TooFewBits: a bound is not finite.
        """
        if not np.isfinite(highest - lowest):
            raise TooFewBits(f"a tensor has values from {lowest} to {highest}")
        lowest, highest = min(lowest, 0.0), max(highest, 0.0)
        scale = np.float32((highest - lowest) / LARGEST_CODE)
        if scale == 0:
            return Coding(1.0, 0)
        return Coding(float(scale), int(np.clip(rounded(-lowest / float(scale)), 0, LARGEST_CODE)))

    def codes(self, values: Floats) -> Codes:
        """The codes of real numbers; those outside the range have the nearest code."""
        codes = rounded(np.asarray(values, np.float64) / self.scale) + self.zero
        found: Codes = np.clip(codes, 0, LARGEST_CODE).astype(np.uint8)
        return found

    def values(self, codes: Codes | Integers) -> Floats:
        """The real numbers that codes stand for, in double precision."""
        return self.scale * (np.asarray(codes, np.float64) - self.zero)

    def table(self, function: Callable[[Floats], Floats], output: Coding) -> Table:
        """(256,) code of function(x) for each code of x."""
        with np.errstate(all="ignore"):
            return output.codes(function(self.values(np.arange(LARGEST_CODE + 1))))


def weight_codes(weight: Floats) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Codes of weights (O, ...) and the scales (O,), by which the largest weight of each channel has the code 64."""
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    scales = (np.abs(rows).max(axis=1, initial=0) / LARGEST_WEIGHT).astype(np.float32)
    scales[scales == 0] = 1
    codes = np.clip(rounded(rows / scales.astype(np.float64)[:, None]), -LARGEST_WEIGHT, LARGEST_WEIGHT)
    return codes.astype(np.int8).reshape(weight.shape), scales


def layer_codes(
    weight: Floats, bias: Floats, source: Coding
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32], Integers]:
    """Codes of weights (O, ...), their scales (O,) and what the sums start from (O,).

    The weights of a dead channel have the code 0: weight decay has left them so small that they move no output, and in
    their units the bias would leave 32 bits.

    Raises:
        TooFewBits: as `sum_codes`.
    """
    codes, scales = weight_codes(weight)
    units = np.abs(np.asarray(bias, np.float64)) / (source.scale * scales.astype(np.float64))
    dead = np.isfinite(units) & (units > LARGEST_START)
    dead &= LARGEST_CODE * np.abs(_rows(codes)).sum(axis=1) < NOTHING * units
    codes[dead] = 0
    scales[dead] *= units[dead] / DEAD_START
    return codes, scales, sum_codes(bias, codes, scales, source)


def sum_codes(bias: Floats, weight: npt.NDArray[np.int8], scales: Floats, source: Coding) -> Integers:
    """(O,) what the sums start from: the bias in units of source.scale * scales, without what `source.zero` adds.

    Raises:
        TooFewBits: sums of a channel could leave 32 bits.
    """
    with np.errstate(over="ignore"):
        units = rounded(np.asarray(bias, np.float64) / (source.scale * scales.astype(np.float64)))
    starts: Integers = np.clip(units, -(2.0**40), 2.0**40).astype(np.int64) - source.zero * _rows(weight).sum(axis=1)
    low, high = sum_bounds(starts, weight)
    if low.min(initial=0) < -LARGEST_START or high.max(initial=0) > LARGEST_START:
        raise TooFewBits(
            f"sums from {low.min()} to {high.max()} leave 32 bits, as a bias is too large for its weights or a layer "
            "has too many inputs"
        )
    return starts


def sum_bounds(starts: Integers, weight: npt.NDArray[np.int8]) -> tuple[Integers, Integers]:
    """The smallest and the largest sum of each channel, for any codes of activations."""
    rows = _rows(weight)
    lows, highs = (LARGEST_CODE * part(rows, 0).sum(axis=1) for part in (np.minimum, np.maximum))
    return np.minimum(starts, starts + lows), np.maximum(starts, starts + highs)


def _rows(weight: npt.NDArray[np.int8]) -> Integers:
    return weight.reshape(len(weight), -1).astype(np.int64)


@dataclass(frozen=True, eq=False)
class Requantisation:
    """From sums of integers to codes. See `requantise` for the formula.

    Attributes:
        bias: (O,) added to the sums; contains half a unit of the first shift.
        significand: (O,) of the multiplier, 11 bits.
        shift: (O,) bits by which sums are shifted to the right, or, below zero, the significand is to the left.
        down: the second shift, in bits, at least 1.
        zero: of the output.
        residual: multiplier of a residual's codes; 0 without one.
        residual_zero: of the residual; 0 without one.
        lowest, highest: bounds of the codes: an activation that only cuts off, such as ReLU.
        table: (256,) code of an activation for each code, or None.
        wide: whether a bias takes 32 bits of the weights file, since those of the channels do not all fit 16.
    """

    bias: Integers
    significand: Integers
    shift: Integers
    down: int
    zero: int
    residual: int = 0
    residual_zero: int = 0
    lowest: int = 0
    highest: int = LARGEST_CODE
    table: Table | None = None
    wide: bool = False

    @property
    def offset(self) -> int:
        """The output's zero, half a unit, and what the residual's zero subtracts, in units of 2**-down."""
        return (self.zero << self.down) + (1 << self.down - 1) - self.residual_zero * self.residual

    @property
    def first(self) -> Integers:
        """(O,) the first shift, in bits."""
        return np.maximum(self.shift, 0)

    @property
    def multiplier(self) -> Integers:
        """(O,) of the shifted sums."""
        return self.significand << np.maximum(-self.shift, 0)


def requantisation(
    starts: Integers,
    bounds: tuple[Integers, Integers],
    scales: npt.ArrayLike,
    output: Coding,
    *,
    residual: Coding | None = None,
    limits: tuple[int, int] = (0, LARGEST_CODE),
) -> Requantisation:
    """Choose shifts and multipliers: as many bits as 32-bit sums hold without overflow.

    Args:
        starts: (O,) what the sums start from.
        bounds: (O,) the smallest and largest sum of each channel, with its start.
        scales: (O,) what a unit of the sums stands for.
        output: the coding of the output.
        residual: the coding of a tensor that is added.
        limits: the smallest and the largest code of the output.

    Raises:
        TooFewBits: a scale is too large for the output's.
    """
    factors = np.asarray(scales, np.float64) / output.scale
    most = 2.0**SIGNIFICAND_BITS - 0.5  # what is below has 11 bits once it is rounded
    exponents = np.floor(np.log2(most / factors)).astype(np.int64)
    exponents -= factors * 2.0**exponents >= most
    ratio, residual_zero = (0.0, 0) if residual is None else (residual.scale / output.scale, residual.zero)
    moved = towards_codes(bounds, factors, output.zero + ratio * (np.array([0, LARGEST_CODE]) - residual_zero), limits)
    starts, bounds = starts + moved, (bounds[0] + moved, bounds[1] + moved)
    for down in range(LARGEST_DOWN, 0, -1):
        shift = np.minimum(exponents - down, SHIFTS[1])
        if shift.min() < SHIFTS[0]:
            continue
        significand = rounded(factors * 2.0 ** (shift + down)).astype(np.int64)
        nearest, wide = rounded_starts(starts, bias_shift(shift, down))
        bias, other = nearest + half(shift), int(rounded(ratio * 2.0**down))
        r = Requantisation(
            bias, significand, shift, down, output.zero, other, residual_zero, *limits, table=None, wide=wide
        )
        largest = np.maximum(*(np.abs(bound - starts + bias >> r.first) for bound in bounds)) * r.multiplier
        if largest.max() + LARGEST_CODE * other + abs(r.offset) <= INT32:
            return r
    raise TooFewBits(f"a unit of a layer's sums is {factors.max():g} units of its output")


def towards_codes(
    bounds: tuple[Integers, Integers], factors: Floats, others: Floats, limits: tuple[int, int]
) -> Integers:
    """(O,) what is added to sums that are cut off whatever the codes are, so that they are nearly not.

    One such channel would take bits from all others.

    Args:
        bounds: (O,) the smallest and the largest sum of each channel.
        factors: (O,) codes of a unit of the sums.
        others: the smallest and the largest number of codes that is added to the sums.
        limits: the codes that they are cut to.
    """
    below = (limits[0] - 1 - others[1]) / factors - bounds[1]
    above = bounds[0] - (limits[1] + 1 - others[0]) / factors
    moved: Integers = np.floor(np.maximum(below, 0)).astype(np.int64) - np.floor(np.maximum(above, 0)).astype(np.int64)
    return moved


def half(shift: Integers) -> Integers:
    """(O,) half a unit of the first shift."""
    return 1 << np.maximum(shift, 0) >> 1


def bias_shift(shift: Integers, down: int) -> Integers:
    """(O,) bits by which the weights file's biases are shifted: to a sixteenth to a thirty-second of an output code.

    An output code is 2**(shift + down) of a channel's sums, divided by a significand of 11 bits.
    """
    return np.maximum(shift + down - BIAS_BITS, 0)


def rounded_starts(starts: Integers, bits: Integers) -> tuple[Integers, bool]:
    """(O,) the nearest multiples of 2**bits, if all of them fit 16 bits; else the starts as they are, and True."""
    found: Integers = starts + (1 << bits >> 1) >> bits
    wide = bool(np.abs(found).max() >= 1 << BIAS_BITS)
    return (starts, True) if wide else (found << bits, False)


def requantise(sums: Integers, r: Requantisation, residual: Codes | None = None) -> Codes:
    """The codes of sums: ((sums >> first) * multiplier + residual * residual's multiplier + offset) >> down.

    Shifts are arithmetic, so that each rounds down; `bias` and `offset` contain the halves that make that rounding to
    the nearest integer.

    Args:
        sums: (N, O, ...) sums of products, with `r.bias`.
        r: of the O channels.
        residual: (N, O, ...) codes that are added.
    """

    def per_channel(values: Integers) -> Integers:
        return values.reshape(-1, *(1,) * (sums.ndim - 2))

    scaled = (sums >> per_channel(r.first)) * per_channel(r.multiplier) + r.offset
    if residual is not None:
        scaled = scaled + residual.astype(np.int64) * r.residual
    codes: Codes = np.clip(scaled >> r.down, r.lowest, r.highest).astype(np.uint8)
    return codes if r.table is None else r.table[codes]
