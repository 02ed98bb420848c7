"""The projection onto ‖x‖₀ ≤ k against enumeration of every support."""

import itertools
import math

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from robust_edge.models import ModelSpec, build_model
from robust_edge.pruning.prunable import budget_of, prunable_parameters
from robust_edge.pruning.schemes.irregular import Irregular
from robust_edge.pruning.settings import PruningConfig
from robust_edge_exporters.weight_uses import sparsity_of
from robust_edge_runtimes.core.errors import InputError

SHAPES = {"a": (2, 2), "b": (3,), "c": (1, 2, 1)}


def project_irregular(weights, keep, **settings):
    return Irregular(**settings).project(weights, keep)


def support_irregular(weights, keep, **settings):
    return Irregular(**settings).support(weights, keep)


def draw(seed, shapes=SHAPES):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def flat(weights):
    return torch.cat([weight.flatten() for weight in weights.values()])


def distance(left, right):
    return float((flat(left) - flat(right)).norm())


def nearest_distance(weights, allowed):
    """Distance to the nearest point whose support `allowed` accepts, by trying all supports."""
    values = flat(weights)
    best = math.inf
    for support in itertools.product((0.0, 1.0), repeat=len(values)):
        if allowed(support):
            best = min(best, float((values * (1 - torch.tensor(support, dtype=values.dtype))).norm()))
    return best


def per_layer(support):
    sizes = [math.prod(shape) for shape in SHAPES.values()]
    ends = list(itertools.accumulate(sizes))
    return [int(sum(support[end - size : end])) for size, end in zip(sizes, ends, strict=True)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [3, 4, 6, 9])
def test_global_scope_is_the_nearest_point_where_each_layer_keeps_one(seed, k):
    weights = draw(seed)
    projected = project_irregular(weights, k / 9)
    best = nearest_distance(weights, lambda s: sum(s) <= k and min(per_layer(s)) >= 1)
    assert distance(weights, projected) == pytest.approx(best, abs=1e-12)
    assert sparsity_of(projected).nonzero == k


@pytest.mark.parametrize("k", [1, 2, 5])
def test_one_layer_alone_is_the_plain_top_k(k):
    weights = draw(7, {"only": (2, 4)})
    projected = project_irregular(weights, k / 8)
    assert distance(weights, projected) == pytest.approx(nearest_distance(weights, lambda s: sum(s) <= k), abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_layer_scope_is_the_nearest_point_with_its_counts(seed):
    weights = draw(seed)
    projected = project_irregular(weights, 5 / 9, scope="layer")
    counts = [layer.nonzero for layer in sparsity_of(projected).layers]
    assert counts == [2, 2, 1]  # shares of 5 by size 4:3:2 are 2.22, 1.67, 1.11: the largest remainder takes the fifth
    assert distance(weights, projected) == pytest.approx(nearest_distance(weights, lambda s: per_layer(s) == counts))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("floor", [0.5, 0.75])
def test_floor_is_granted_before_the_threshold(seed, floor):
    weights = draw(seed)
    k = 7
    projected = project_irregular(weights, k / 9, floor=floor)
    least = [max(1, int(floor * size)) for size in (4, 3, 2)]
    best = nearest_distance(
        weights, lambda s: sum(s) == k and all(n >= m for n, m in zip(per_layer(s), least, strict=True))
    )
    assert distance(weights, projected) == pytest.approx(best, abs=1e-12)


def test_a_layer_of_small_weights_survives_the_global_threshold():
    weights = {"strong": torch.arange(1.0, 101.0), "weak": torch.linspace(1e-6, 1e-5, 100)}
    projected = project_irregular(weights, 0.1, floor=0.05)
    counts = {layer.name: layer.nonzero for layer in sparsity_of(projected).layers}
    assert counts == {"strong": 15, "weak": 5}


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_ties_keep_the_exact_count_and_the_first_positions(scope):
    weights = {"a": torch.ones(10), "b": -torch.ones(6)}
    projected = project_irregular(weights, 0.5, scope=scope)
    assert sparsity_of(projected).nonzero == 8
    for weight in projected.values():
        kept = weight != 0
        assert kept[: int(kept.sum())].all()


def test_the_support_counts_positions_even_where_weights_are_zero():
    weights = {"a": torch.zeros(8), "b": torch.tensor([1.0, 0.0, 0.0, 0.0])}
    support = support_irregular(weights, 0.5)
    assert sum(int(mask.sum()) for mask in support.values()) == 6
    assert sparsity_of(project_irregular(weights, 0.5)).nonzero == 1


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_too_few_weights_for_the_layers_is_an_input_error(scope):
    with pytest.raises(InputError, match=r"raise pruning\.keep"):
        project_irregular(draw(0), 2 / 9, scope=scope)


def test_a_floor_above_keep_is_an_input_error():
    with pytest.raises(InputError, match=r"lower pruning\.floor"):
        project_irregular(draw(0), 4 / 9, floor=0.75)


def test_keep_one_changes_nothing_and_shares_nothing():
    weights = draw(0)
    projected = project_irregular(weights, 1.0, floor=1.0)
    for name, weight in weights.items():
        assert torch.equal(projected[name], weight)
        assert projected[name].data_ptr() != weight.data_ptr()


def test_dropped_weights_become_positive_zero():
    projected = project_irregular({"a": torch.tensor([-3.0, -1.0, -2.0])}, 1 / 3)
    assert not torch.signbit(projected["a"][1:]).any()


def test_config_chooses_scope_and_floor():
    weights = {"strong": torch.arange(1.0, 101.0), "weak": torch.linspace(1e-6, 1e-5, 100)}

    def counts(**settings):
        projected = PruningConfig.from_plain(settings).build(nn.Linear(1, 1), (1, 1, 1)).project(weights, 0.1)
        return [layer.nonzero for layer in sparsity_of(projected).layers]

    assert counts(scope="global", floor=0.0) == [19, 1]
    assert counts(scope="global", floor=0.03) == [17, 3]
    assert counts(scope="global", keep=0.16) == [16, 4]  # a quarter of keep
    assert counts(scope="layer") == [10, 10]


tensors = st.lists(
    st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=12).map(torch.tensor), min_size=1, max_size=4
).map(lambda layers: {f"layer{i}": layer for i, layer in enumerate(layers)})


@hypothesis.given(tensors, st.floats(0.01, 1), st.sampled_from(["global", "layer"]), st.floats(0, 1))
def test_properties_of_every_projection(weights, keep, scope, floor):
    budget = budget_of(weights, keep)
    least = [max(1, int(floor * w.numel())) if scope == "global" else 1 for w in weights.values()]
    if budget < sum(least):
        with pytest.raises(InputError):
            support_irregular(weights, keep, scope=scope, floor=floor)
        return
    support = support_irregular(weights, keep, scope=scope, floor=floor)
    projected = project_irregular(weights, keep, scope=scope, floor=floor)
    assert sum(int(mask.sum()) for mask in support.values()) == budget
    for (name, weight), floor_count in zip(weights.items(), least, strict=True):
        kept, dropped = weight[support[name]].abs(), weight[~support[name]].abs()
        assert len(kept) >= floor_count
        assert torch.equal(projected[name], weight * support[name])
        if len(dropped):
            assert kept.min() >= dropped.max()
    again = project_irregular(projected, keep, scope=scope, floor=floor)
    assert all(torch.equal(again[name], projected[name]) for name in weights)


@hypothesis.given(tensors, st.floats(0.01, 1))
def test_layer_scope_shares_the_budget_in_proportion(weights, keep):
    budget = budget_of(weights, keep)
    if budget < len(weights):
        return
    support = PruningConfig.from_plain({"scope": "layer"}).build(nn.Linear(1, 1), (1, 1, 1)).support(weights, keep)
    total = sum(weight.numel() for weight in weights.values())
    shares = {name: budget * weight.numel() / total for name, weight in weights.items()}
    lifted = sum(max(0.0, 1 - share) for share in shares.values())  # what layers below one weight take from the others
    for name, share in shares.items():
        assert abs(int(support[name].sum()) - share) < 1 + lifted + 1e-9


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("k", [5, 6, 8])
def test_dense_layers_keep_all_and_the_rest_shares_what_is_left(scope, k):
    weights = draw(3)
    projected = project_irregular(weights, k / 9, scope=scope, dense=frozenset({"b"}))
    assert torch.equal(projected["b"], weights["b"])
    assert int(flat(projected).count_nonzero()) == k
    if scope == "global":
        rest = flat({name: weights[name] for name in ("a", "c")}).square().sort().values
        least = rest[: len(rest) - (k - 3)].sum()  # of all choices of the others, the one that loses least
        pools = [pool for pool in itertools.combinations(range(6), k - 3) if min(pool) < 4 <= max(pool)]
        squares = flat({name: weights[name] for name in ("a", "c")}).square()
        best = min(float(squares.sum() - squares[list(pool)].sum()) for pool in pools)  # each layer keeps one
        assert distance(projected, weights) ** 2 == pytest.approx(best)
        assert best >= float(least) - 1e-12
    else:
        assert abs(int(projected["a"].count_nonzero()) - (k - 3) * 4 / 6) < 1


def test_no_room_for_dense_layers_names_the_way_out():
    with pytest.raises(InputError, match=r"prune_depthwise=true"):
        project_irregular(draw(0), 4 / 9, dense=frozenset({"b", "c"}))


def test_depthwise_layers_stay_dense_unless_told():
    model = build_model(
        ModelSpec(arch="mobilenet_v2", shape=(3, 32, 32), classes=("a", "b"), mean=(0.5,) * 3, std=(0.5,) * 3)
    )
    depthwise = [f"{n}.weight" for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d) and m.groups > 1]
    weights = prunable_parameters(model)
    for scope in ("global", "layer"):
        support = PruningConfig.from_plain({"scope": scope}).build(model, (3, 32, 32)).support(weights, 0.1)
        assert all(bool(support[name].all()) for name in depthwise)
        kept = {name: float(mask.float().mean()) for name, mask in support.items()}
        assert min(kept.values()) >= 0.1 / 4 - 1e-3
        pruned = (
            PruningConfig.from_plain({"scope": scope, "prune_depthwise": True})
            .build(model, (3, 32, 32))
            .support(weights, 0.1)
        )
        assert not any(bool(pruned[name].all()) for name in depthwise)


class Functional(nn.Module):
    """A depthwise convolution without a module, as in the graph of an imported network."""

    def __init__(self):
        super().__init__()
        self.kernel, self.rest = nn.Parameter(torch.randn(4, 1, 3, 3)), nn.Conv2d(4, 16, 1)

    def forward(self, x):
        return self.rest(nn.functional.conv2d(x, self.kernel, groups=4)).mean((2, 3))


def test_a_depthwise_kernel_of_no_module_stays_dense():
    assert PruningConfig().build(Functional(), (4, 6, 6)).dense_layers == ("kernel",)


def test_weights_in_channels_last_are_projected_alike():
    generator = torch.Generator().manual_seed(0)
    plain = {
        "a.weight": torch.randn(8, 4, 3, 3, generator=generator),
        "b.weight": torch.randn(6, 8, generator=generator),
    }
    moved = {**plain, "a.weight": plain["a.weight"].to(memory_format=torch.channels_last)}
    for name, wanted in project_irregular(plain, 0.2).items():
        assert torch.equal(project_irregular(moved, 0.2)[name], wanted)
