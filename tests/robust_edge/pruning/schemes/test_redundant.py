"""Filters alike: distances by loops, who goes and why, and what one threshold would have kept."""

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from robust_edge.models import ModelSpec, build_model
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge.pruning.schemes import redundant as module
from robust_edge.pruning.schemes.irregular import Irregular
from robust_edge.pruning.schemes.redundant import Redundant, distances_to_stronger
from robust_edge.pruning.settings import PruningConfig
from robust_edge_runtimes.core.errors import InputError

DOUBLE = torch.float64


def draw(seed=0, **shapes):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=DOUBLE) for name, shape in shapes.items()}


def stronger_by_loops(weights):
    """Layer to the distance of each filter to the nearest stronger one of its shape, written out."""
    filters = [(name, i, row) for name, weight in weights.items() for i, row in enumerate(weight)]
    found = {name: [float("inf")] * len(weight) for name, weight in weights.items()}
    for place, (name, i, row) in enumerate(filters):
        for other_place, (_, _, other) in enumerate(filters):
            stronger = (other.norm(), -other_place) > (row.norm(), -place)
            if other.shape == row.shape and stronger:
                distance = float((row / row.norm() - other / other.norm()).norm())
                found[name][i] = min(found[name][i], distance)
    return found


def whole(mask):
    return mask.flatten(1).all(1)


@pytest.mark.parametrize("block", [1, 3, 1024])
def test_distances_are_those_of_the_loops(monkeypatch, block):
    monkeypatch.setattr(module, "BLOCK", block)
    weights = draw(a=(6, 2, 3, 3), b=(5, 2, 3, 3), c=(4, 2, 1, 1), d=(3, 8), e=(4, 8))
    expected = stronger_by_loops(weights)
    for name, distance in distances_to_stronger(weights).items():
        assert distance.tolist() == pytest.approx(expected[name], abs=1e-7)


def test_length_and_opposite_direction_are_no_likeness():
    direction = draw(a=(1, 4, 3, 3))["a"][0]
    weights = {"a": torch.stack([3 * direction, -2 * direction, direction, 0 * direction])}
    assert distances_to_stronger(weights)["a"].tolist() == pytest.approx([float("inf"), 2, 0, 0], abs=1e-7)


def test_of_two_filters_alike_the_weaker_goes_though_magnitude_keeps_both():
    """Filter 1 is nearly filter 0 and larger than all others; one threshold keeps it, and loses the lone weak one."""
    weights = draw(a=(4, 3, 3, 3), head=(2, 4))
    weights["a"][0] = 5 * weights["a"][0]
    weights["a"][1] = 0.9 * weights["a"][0] + 0.01 * weights["a"][1]
    weights["a"][3] *= 0.1
    keep = (3 * 27 + 8) / (4 * 27 + 8)
    by_magnitude = Irregular().support(weights, keep)["a"]
    ours = Redundant(whole=frozenset({"head"})).support(weights, keep)["a"]
    assert by_magnitude[1].float().mean() > 0.9
    assert not by_magnitude[3].all()
    assert whole(ours).tolist() == [True, False, True, True]
    assert not ours[1].any()


def test_layers_of_one_shape_are_compared_with_each_other():
    weights = draw(a=(3, 2, 3, 3), b=(3, 2, 3, 3))
    weights["b"][2] = 0.5 * weights["a"][0]
    support = Redundant().support(weights, 5 / 6)
    assert [whole(mask).tolist() for mask in support.values()] == [[True] * 3, [True, True, False]]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [60, 90, 127])
def test_no_two_whole_filters_are_closer_than_those_that_went_are_to_a_stronger_one(seed, k):
    weights = draw(seed, a=(6, 2, 3, 3), b=(5, 2, 3, 3), c=(4, 5))
    support = Redundant(whole=frozenset({"c"})).support(weights, k / 218)
    distances = stronger_by_loops({name: weights[name] for name in "ab"})
    stays = {name: whole(support[name]).tolist() for name in "ab"}
    assert support["c"].all()
    kept = [d for n in "ab" for d, stay in zip(distances[n], stays[n], strict=True) if stay]
    gone = [d for n in "ab" for d, stay in zip(distances[n], stays[n], strict=True) if not stay]
    freely = [d for n in "ab" for d in sorted(distances[n])[:-1]]  # each layer's most distinct filter stays in any case
    assert min(set(kept) & set(freely), default=float("inf")) >= max(gone)
    beside = {name: support[name] & ~whole(support[name]).view(-1, 1, 1, 1) for name in "ab"}
    assert sum(int(mask.sum()) for mask in support.values()) == k
    assert sum(int(mask.sum()) for mask in beside.values()) == (k - 20) % 18
    left = torch.cat([weights[n][beside[n]].abs() for n in "ab"])
    lost = torch.cat([weights[n][~support[n]].abs() for n in "ab"])
    assert not len(left) or left.min() >= lost.max()


def test_the_floor_keeps_the_filters_that_are_most_their_own():
    weights = draw(a=(8, 2, 3, 3), b=(8, 2, 3, 3))
    weights["b"] = 0.1 * weights["a"] + 0.001 * weights["b"]  # all of b repeats a
    support = Redundant(floor=0.25).support(weights, 10 / 16)
    assert whole(support["a"]).all()
    assert int(whole(support["b"]).sum()) == 2


def test_networks_keep_their_classes_and_depthwise_filters():
    torch.manual_seed(0)
    spec = ModelSpec(arch="mobilenet_v2", shape=(3, 8, 8), classes=tuple("0123456789"), mean=(0.0,) * 3, std=(1.0,) * 3)
    model = build_model(spec)
    weights = prunable_parameters(model)
    scheme = PruningConfig.from_plain({"scheme": "redundant"}).build(model, (3, 8, 8))
    support = scheme.support(weights, 0.1)
    depthwise = {name for name, weight in weights.items() if weight.shape[1] == 1}
    assert set(scheme.dense_layers) == depthwise | {"network.classifier.1.weight"}
    assert all(support[name].all() for name in scheme.dense_layers)
    assert all(whole(mask).any() for mask in support.values())
    assert sum(int(mask.sum()) for mask in support.values()) == round(0.1 * sum(w.numel() for w in weights.values()))


def test_too_few_weights_for_a_filter_in_each_layer_is_an_input_error():
    weights = draw(a=(6, 2, 3, 3), c=(4, 5))
    with pytest.raises(InputError, match=r"keep leaves 13 weights, 25 fewer than .* raise pruning\.keep"):
        Redundant(whole=frozenset({"c"})).support(weights, 0.1)


def test_the_check_sees_loose_weights_and_missing_filters():
    scattered = torch.arange(24).view(4, 6) % 2 == 0
    assert "a keeps 0 whole filters; it must keep at least 1" in Redundant().violation({"a": scattered}, 0.5)
    scattered[0] = True
    assert (
        Redundant().violation({"a": scattered}, 15 / 24)
        == "9 weights are kept beside whole filters; they must be fewer than a filter has"
    )
    scattered[2:] = False
    assert Redundant().violation({"a": scattered}, 9 / 24) is None
    assert "requires 12" in Redundant().violation({"a": scattered}, 0.5)


@hypothesis.given(
    st.lists(st.integers(1, 4), min_size=1, max_size=3), st.floats(0.05, 1), st.floats(0, 1), st.integers(0, 5)
)
def test_repeated_and_empty_filters_never_break_the_set(filters, keep, floor, seed):
    """`support` checks itself; weights are drawn from few values, so most filters are alike or zero."""
    generator = torch.Generator().manual_seed(seed)
    weights = {
        f"l{i}": torch.randint(-1, 2, (count, 2, 2), generator=generator).float() for i, count in enumerate(filters)
    }
    scheme = Redundant(floor=floor)
    least = sum(4 * max(1, int(floor * count)) for count in filters)
    if max(1, round(keep * 4 * sum(filters))) < least:
        with pytest.raises(InputError):
            scheme.support(weights, keep)
    else:
        scheme.support(weights, keep)
