"""The projection under two bounds, against enumeration of every support; what it saves on a real network."""

import itertools

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from robust_edge.models import ModelSpec, build_model
from robust_edge.pruning.layout import layout_of
from robust_edge.pruning.prunable import budget_of, prunable_parameters
from robust_edge.pruning.schemes.irregular import Irregular
from robust_edge.pruning.schemes.macs import Macs
from robust_edge.pruning.settings import PruningConfig
from robust_edge_runtimes.core.errors import InputError

COSTS = {"a": 16, "b": 4, "c": 1}
SIZES = {"a": 4, "b": 4, "c": 3}


def draw(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(size, generator=generator, dtype=torch.float64) for name, size in SIZES.items()}


def energy_and_needs(weights):
    """(kept energy, multiply-accumulates, kept) of every support that leaves each layer a weight."""
    values = torch.cat(list(weights.values())).square().tolist()
    costs = [COSTS[name] for name, weight in weights.items() for _ in weight]
    layers = [name for name, weight in weights.items() for _ in weight]
    for support in itertools.product((0, 1), repeat=len(values)):
        if len({layer for layer, bit in zip(layers, support, strict=True) if bit}) == len(weights):
            chosen = [i for i, bit in enumerate(support) if bit]
            yield sum(values[i] for i in chosen), sum(costs[i] for i in chosen), len(chosen)


def kept_energy(weights, support):
    return sum(float(weights[name][mask].square().sum()) for name, mask in support.items())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("k", "share"), [(5, 0.5), (5, 0.35), (7, 0.6), (6, 1.0)])
def test_no_support_keeps_more_with_as_little_arithmetic(seed, k, share):
    weights = draw(seed)
    scheme = Macs(macs_per_weight=COSTS, share=share)
    support = scheme.support(weights, k / 11)
    counts = {name: int(mask.sum()) for name, mask in support.items()}
    needed = scheme.needed(counts)
    assert sum(counts.values()) == k
    assert needed <= share * sum(COSTS[name] * SIZES[name] for name in SIZES)
    best = max(energy for energy, macs, kept in energy_and_needs(weights) if kept == k and macs <= needed)
    assert kept_energy(weights, support) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(5))
def test_a_bound_that_binds_nothing_is_the_global_threshold(seed):
    weights = draw(seed)
    support = Macs(macs_per_weight=COSTS, share=1.0, floor=0.3).support(weights, 6 / 11)
    plain = Irregular(floor=0.3).support(weights, 6 / 11)
    assert all(torch.equal(support[name], plain[name]) for name in weights)


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    spec = ModelSpec(arch="resnet18", shape=(3, 32, 32), classes=tuple("0123456789"), mean=(0.0,) * 3, std=(1.0,) * 3)
    model = build_model(spec)
    return model, {name: weight.detach() for name, weight in prunable_parameters(model).items()}


def test_resnet18_keeps_as_many_weights_and_computes_less(resnet):
    """With a global threshold a tenth of the weights takes more than a tenth of the arithmetic; here it may not."""
    model, weights = resnet
    layout = layout_of(model, (3, 32, 32))
    dense = layout.macs(weights)
    found = {}
    for scope in ("global", "macs"):
        support = PruningConfig.from_plain({"scope": scope}).build(model, (3, 32, 32)).support(weights, 0.1)
        found[scope] = (sum(int(mask.sum()) for mask in support.values()), layout.macs(support))
    assert found["global"][0] == found["macs"][0] == round(0.1 * sum(w.numel() for w in weights.values()))
    assert found["global"][1] > 1.5 * found["macs"][1]
    assert 0.099 * dense < found["macs"][1] <= 0.1 * dense


def test_it_is_nearer_than_the_same_fraction_in_every_layer(resnet):
    """The same arithmetic bound, so the freedom to choose layers can only help."""
    _, weights = resnet
    weights = {name: weight for name, weight in weights.items() if "layer1" in name or "layer2.0" in name}
    costs = {name: 1024 if "layer1" in name else 256 for name in weights}
    even = Irregular(scope="layer").support(weights, 0.1)
    ours = Macs(macs_per_weight=costs).support(weights, 0.1)
    assert kept_energy(weights, ours) > kept_energy(weights, even)


def test_too_little_arithmetic_for_so_many_weights_is_an_input_error():
    with pytest.raises(InputError, match=r"7 weights need at least 31 .* pruning\.macs allows 29; raise pruning\.macs"):
        Macs(macs_per_weight=COSTS, share=0.35).support(draw(0), 7 / 11)


def test_the_check_sees_a_support_that_computes_too_much():
    scheme = Macs(macs_per_weight=COSTS, share=0.5)
    costly = {"a": torch.tensor([True] * 3 + [False]), "b": torch.eye(4)[0] > 0, "c": torch.eye(3)[0] > 0}
    assert scheme.violation(costly, 5 / 11) == "53 multiply-accumulates are left; at most 42 are allowed"
    assert "its floor is 1" in scheme.violation(
        {**costly, "a": torch.zeros(4, dtype=torch.bool), "b": torch.ones(4, dtype=torch.bool)}, 5 / 11
    )


tensors = st.lists(
    st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=12).map(torch.tensor), min_size=1, max_size=4
).map(lambda layers: {f"layer{i}": layer for i, layer in enumerate(layers)})


@hypothesis.given(tensors, st.floats(0.01, 1), st.floats(0.05, 1), st.lists(st.integers(1, 1024), min_size=4))
def test_every_support_keeps_both_bounds(weights, keep, share, costs):
    """And a refusal is exactly where no support does: one weight in each layer, the others where they are cheapest."""
    scheme = Macs(macs_per_weight=dict(zip(weights, costs, strict=False)), share=share)
    budget = budget_of(weights, keep)
    spare = [scheme.macs_per_weight[name] for name, weight in weights.items() for _ in weight[1:]]
    least = sum(scheme.macs_per_weight.values()) + sum(sorted(spare)[: max(0, budget - len(weights))])
    if budget < len(weights) or least > scheme.bound(weights, keep):
        with pytest.raises(InputError, match=r"raise pruning\.keep|raise pruning\.macs"):
            scheme.support(weights, keep)
        return
    support = scheme.support(weights, keep)
    assert sum(int(mask.sum()) for mask in support.values()) == budget
    assert sum(scheme.macs_per_weight[n] * int(mask.sum()) for n, mask in support.items()) <= scheme.bound(
        weights, keep
    )
    for name, weight in weights.items():
        kept, dropped = weight[support[name]].abs(), weight[~support[name]].abs()
        assert not len(dropped) or kept.min() >= dropped.max()
