"""The numbers of the int8 engine, against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from robust_edge_exporters.native.int8.arithmetic import (
    INT32,
    Coding,
    half,
    layer_codes,
    requantisation,
    requantise,
    rounded,
    sum_bounds,
    sum_codes,
    weight_codes,
)
from robust_edge_exporters.native.kernels.channel_records import RECORD, channel_records, read_records
from robust_edge_exporters.quantisation import TooFewBits
from robust_edge_runtimes.core.errors import ExportError


def test_halves_are_rounded_up():
    assert rounded([-1.5, -0.5, 0.5, 1.5, 0.4999]).tolist() == [-1, 0, 1, 2, 0]


@pytest.mark.parametrize(("lowest", "highest"), [(0.0, 1.0), (-1.0, 3.0), (0.5, 2.0), (-3.0, -1.0), (-0.2, 700.0)])
def test_a_coding_holds_its_range_and_zero_exactly(lowest, highest):
    coding = Coding.of_range(lowest, highest)
    values = np.linspace(lowest, highest, 1001)
    error = np.abs(coding.values(coding.codes(values)) - values).max()
    assert error <= coding.scale * 1.001  # at the ends the zero may be half a step off
    assert coding.values(np.array(coding.zero)) == 0
    assert np.float32(coding.scale) == coding.scale


def test_an_image_of_8_bits_is_held_exactly():
    pixels = np.arange(256, dtype=np.float32) / np.float32(255)
    assert Coding.of_range(0, 1).codes(pixels).tolist() == list(range(256))


def test_a_constant_tensor_of_zeros_has_a_coding():
    assert Coding.of_range(0, 0).values(np.array([0])).tolist() == [0]


def test_a_range_that_is_not_finite_is_refused():
    with pytest.raises(ExportError, match=r"8 bits are too few.*values from"):
        Coding.of_range(0, float("nan"))


def test_two_products_fit_16_bits_and_zeros_stay_zeros():
    weight = np.random.default_rng(0).standard_normal((8, 3, 3, 3)) * 10.0 ** np.arange(-4, 4)[:, None, None, None]
    weight[5, 0] = 0
    weight[7] = 0
    codes, scales = weight_codes(weight)
    assert 2 * 255 * int(np.abs(codes).max()) < 2**15
    assert np.abs(codes[:7]).reshape(7, -1).max(axis=1).tolist() == [64] * 7
    assert not codes[5, 0].any()
    assert not codes[7].any()
    assert (np.abs(codes * scales[:, None, None, None] - weight) <= scales[:, None, None, None] * 0.501).all()


def test_a_dead_channel_keeps_its_bias():
    """Weights that decayed to denormal numbers, in whose units a bias takes more than 32 bits."""
    weight = np.random.default_rng(0).standard_normal((3, 9)).astype(np.float32)
    weight[1:] *= np.float32([[1e-41], [1e-20]])
    bias, source = np.float32([0.3, -0.7, 0.2]), Coding(0.02, 0)
    codes, scales, starts = layer_codes(weight, bias, source)
    assert np.abs(codes).max(axis=1).tolist() == [64, 0, 0]
    assert np.allclose(starts * source.scale * scales, bias, rtol=1e-3)
    with pytest.raises(TooFewBits):
        layer_codes(np.full((1, 70_000), 1e-6), np.ones(1), source)


def test_requantised_sums_are_the_nearest_codes():
    """Against exact fractions: at most the resolution of multiplier and first shift away from the nearest."""
    random = np.random.default_rng(1)
    weight = random.integers(-64, 65, (40, 600)) * (random.random((40, 600)) < 0.1)
    scales = np.float64(10.0 ** random.uniform(-6, -3, 40))
    source, output, other = Coding(0.01, 13), Coding(0.02, 100), Coding(0.05, 7)
    starts = sum_codes(random.standard_normal(40) * 20 * source.scale * scales, weight.astype(np.int8), scales, source)
    r = requantisation(
        starts, sum_bounds(starts, weight.astype(np.int8)), source.scale * scales, output, residual=other
    )
    codes, residual = random.integers(0, 256, (50, 600)), random.integers(0, 256, (50, 40)).astype(np.uint8)
    got = requantise(codes @ weight.T + r.bias, r, residual)
    for k in range(40):
        for n in range(50):
            total = (int(codes[n] @ weight[k]) + int(starts[k])) * Fraction(source.scale * scales[k])
            total += (int(residual[n, k]) - other.zero) * Fraction(other.scale)
            exact = total / Fraction(output.scale) + output.zero
            code = min(max(floor(exact + Fraction(1, 2)), 0), 255)
            near = min(abs(exact - floor(exact) - Fraction(1, 2)), 1)
            assert abs(int(got[n, k]) - code) <= (near < Fraction(1, 5))


def test_no_sum_leaves_32_bits():
    """With the worst codes and factors from far below one to the largest that is accepted."""
    random = np.random.default_rng(2)
    for exponent in range(-12, 1):
        weight = random.integers(-64, 65, (4, 4608)).astype(np.int8)
        starts = np.zeros(4, np.int64)
        low, high = sum_bounds(starts, weight)
        r = requantisation(starts, (low, high), [10.0**exponent] * 4, Coding(1.0, 255), residual=Coding(3.0, 255))
        for bound in (low, high):
            products = ((bound + r.bias) >> r.first) * r.multiplier
            for residual in (0, 255):
                assert np.abs(products + residual * r.residual + r.offset).max() <= INT32
                assert np.abs(products).max() <= INT32


@pytest.mark.parametrize("largest", [1, 100])
def test_a_bias_is_held_to_a_thirty_second_of_a_code(largest):
    """Exactly, where biases are too large for 16 bits."""
    random = np.random.default_rng(3)
    weight, scales = random.integers(-64, 65, (30, 300)).astype(np.int8), 10.0 ** random.uniform(-4, -3, 30)
    starts = rounded(largest * random.uniform(-1, 1, 30) / scales).astype(np.int64)
    r = requantisation(starts, sum_bounds(starts, weight), scales, Coding(0.03, 5))
    error = np.abs(r.bias - half(r.shift) - starts) * scales / 0.03
    assert error.max() <= 1 / 32
    assert (largest == 1) == bool(error.any())
    assert (largest == 1) == (channel_records(r, 32).dtype == RECORD)


def test_a_channel_that_is_always_cut_off_takes_no_bits_from_others():
    random = np.random.default_rng(5)
    weight, scales = random.integers(-64, 65, (30, 300)).astype(np.int8), np.full(30, 2e-4)
    starts, output = rounded(random.standard_normal(30) * 100).astype(np.int64), Coding(0.5, 5)
    other = Coding(1.0, 128)
    expected = requantisation(starts, sum_bounds(starts, weight), scales, output, residual=other)
    codes = random.integers(0, 256, (50, 300))
    for far, limit in ((-1e7, 0), (1e7, 255)):
        moved = np.where(np.arange(30) == 3, int(far), starts)
        r = requantisation(moved, sum_bounds(moved, weight), scales, output, residual=other)
        assert r.down >= expected.down - 1
        assert not r.wide
        residual = random.integers(0, 256, (50, 30)).astype(np.uint8)
        assert (requantise(codes @ weight.T + r.bias, r, residual)[:, 3] == limit).all()


def test_records_hold_the_numbers_of_every_channel():
    random = np.random.default_rng(4)
    for largest in (1, 1e5):
        scales = 10.0 ** random.uniform(-9, 0, 30)
        starts = rounded(largest * random.standard_normal(30) / scales).clip(-(2**30), 2**30).astype(np.int64)
        bounds = (starts - 10, starts + 10)
        r = requantisation(starts, bounds, scales, Coding(4.0, 5), residual=Coding(3.0, 255))
        records = channel_records(r, 32)
        assert not records[30:]["packed"].any()
        read = read_records(r, records[:30], r.down, r.residual)
        for name in ("bias", "significand", "shift", "first", "multiplier", "offset"):
            np.testing.assert_array_equal(getattr(read, name), getattr(r, name))
        assert len(np.unique(r.shift)) > 10


def test_sums_that_could_overflow_are_refused():
    with pytest.raises(ExportError, match="leave 32 bits"):
        sum_codes(np.array([2e9]), np.ones((1, 4), np.int8), np.ones(1, np.float32), Coding(1.0, 0))
    with pytest.raises(ExportError, match="leave 32 bits"):
        sum_codes(np.zeros(1), np.full((1, 70000), 64, np.int8), np.ones(1, np.float32), Coding(1.0, 0))
