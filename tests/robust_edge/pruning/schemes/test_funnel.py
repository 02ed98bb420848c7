"""Strictly decreasing fractions with an exact total; what sets the funnel apart from one threshold."""

import itertools
from fractions import Fraction

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from sklearn.isotonic import isotonic_regression

from robust_edge.pruning.schemes.funnel import Funnel, decreasing, strict_counts
from robust_edge.pruning.schemes.irregular import Irregular
from robust_edge_runtimes.core.errors import InputError


def draw(scales, size=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {f"l{i}": scale * torch.randn(size + 10 * i, generator=generator) for i, scale in enumerate(scales)}


def fractions_of(support):
    return [Fraction(int(mask.sum()), mask.numel()) for mask in support.values()]


def strictly_decreasing(values):
    return all(upper > lower for upper, lower in itertools.pairwise(values))


def test_deep_layers_with_large_weights_give_way_where_a_threshold_would_keep_them():
    """The reverse of what magnitudes ask for: one threshold keeps most of the last layer, the funnel least of it."""
    weights = draw([0.1, 0.5, 1.0, 2.0])
    plain, funnel = Irregular().support(weights, 0.3), Funnel().support(weights, 0.3)
    assert not strictly_decreasing(fractions_of(plain))
    assert fractions_of(plain)[-1] > Fraction(1, 2)
    assert strictly_decreasing(fractions_of(funnel))
    assert fractions_of(funnel)[-1] < Fraction(3, 10) < fractions_of(funnel)[0]
    assert sum(int(mask.sum()) for mask in funnel.values()) == sum(int(mask.sum()) for mask in plain.values())


@pytest.mark.parametrize("seed", range(3))
def test_where_magnitudes_already_fall_with_depth_it_is_the_nearest_point(seed):
    weights = draw([4.0, 2.0, 1.0, 0.5], seed=seed)
    plain, funnel = Irregular().support(weights, 0.4), Funnel().support(weights, 0.4)
    assert strictly_decreasing(fractions_of(plain))
    assert all(torch.equal(funnel[name], plain[name]) for name in weights)


def test_each_layer_keeps_its_largest():
    weights = draw([0.1, 0.5, 1.0, 2.0])
    for name, mask in Funnel().support(weights, 0.3).items():
        assert weights[name][mask].abs().min() >= weights[name][~mask].abs().max()


def test_depth_is_the_order_of_use_and_not_that_of_the_names():
    weights = draw([1.0, 1.0, 1.0])
    support = Funnel(depth=("l2", "l0", "l1")).support(weights, 0.3)
    kept = dict(zip(weights, fractions_of(support), strict=True))
    assert kept["l2"] > kept["l0"] > kept["l1"]


sizes_and_counts = st.lists(st.integers(1, 60), min_size=1, max_size=6).flatmap(
    lambda sizes: st.tuples(st.just(sizes), st.tuples(*(st.integers(1, size) for size in sizes)))
)


@hypothesis.given(sizes_and_counts)
def test_fractions_in_order_are_the_isotonic_regression(drawn):
    """scikit-learn's, an implementation of its own."""
    sizes, counts = ({str(i): value for i, value in enumerate(values)} for values in drawn)
    shares = [counts[name] / sizes[name] for name in sizes]
    expected = isotonic_regression(shares, sample_weight=list(sizes.values()), increasing=False)
    found = decreasing(counts, sizes)
    assert list(found) == list(sizes)
    assert list(found.values()) == pytest.approx(list(expected))
    assert sum(found[name] * sizes[name] for name in sizes) == pytest.approx(sum(counts.values()))


@hypothesis.given(
    st.lists(st.integers(1, 7), min_size=1, max_size=4), st.integers(1, 28), st.lists(st.floats(0.01, 1), min_size=4)
)
def test_whole_numbers_are_found_exactly_where_there_are_any(sizes, budget, wished):
    """Against a walk through all counts."""
    names = [str(i) for i in range(len(sizes))]
    named = dict(zip(names, sizes, strict=True))
    possible = any(
        sum(counts) == budget and strictly_decreasing([Fraction(c, s) for c, s in zip(counts, sizes, strict=True)])
        for counts in itertools.product(*(range(1, size + 1) for size in sizes))
    )
    wishes = dict(zip(names, sorted(wished[: len(names)], reverse=True), strict=True))
    if not possible:
        with pytest.raises(InputError, match=r"change pruning\.keep"):
            strict_counts(wishes, named, budget, dict.fromkeys(names, 1))
        return
    counts = strict_counts(wishes, named, budget, dict.fromkeys(names, 1))
    assert sum(counts.values()) == budget
    assert strictly_decreasing([Fraction(counts[name], named[name]) for name in names])


def test_more_than_a_funnel_can_hold_is_an_input_error():
    """Fractions 40/40 > 49/50 > 58/60 > 67/70, or 1/40 > 1/50 > 1/60 > 1/70."""
    with pytest.raises(InputError, match=r"strictly decrease over these 4 layers leave 4 to 214; change pruning\.keep"):
        Funnel().support(draw([1.0] * 4), 0.999)


def test_the_check_sees_a_layer_that_keeps_no_less():
    layer = torch.tensor([True, False])
    assert "b keeps 50.00%, not less than a before it" in Funnel().violation({"a": layer, "b": layer}, 0.5)
