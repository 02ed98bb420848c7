"""n of m along the input channels: against every support of a small layer, and the exporters' own 2:4 count."""

import itertools

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from robust_edge.models import ModelSpec, build_model
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge.pruning.schemes.nm import NOfM
from robust_edge.pruning.settings import PruningConfig
from robust_edge_runtimes.core.errors import InputError


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def groups_of(mask, m):
    """Every group by loops: one output, one position, m neighbouring inputs."""
    for output in range(mask.shape[0]):
        for position in itertools.product(*(range(size) for size in mask.shape[2:])):
            for first in range(0, mask.shape[1], m):
                yield [bool(mask[(output, channel, *position)]) for channel in range(first, first + m)]


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 4), (1, 2), (4, 8)])
@pytest.mark.parametrize("shape", [(3, 8, 3, 3), (5, 16), (2, 8, 1, 1)])
def test_every_group_keeps_its_n_largest(n, m, shape):
    weight = draw(*shape)
    support = NOfM(n=n, m=m).support({"w": weight}, n / m)["w"]
    expected = torch.zeros_like(support)
    for output in range(shape[0]):
        for position in itertools.product(*(range(size) for size in shape[2:])):
            for first in range(0, shape[1], m):
                group = [(output, channel, *position) for channel in range(first, first + m)]
                for index in sorted(group, key=lambda index: -abs(float(weight[index])))[:n]:
                    expected[index] = True
    assert torch.equal(support, expected)
    assert all(sum(group) == n for group in groups_of(support, m))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [3, 5, 6])
def test_a_smaller_keep_is_the_nearest_point_of_pattern_and_count(seed, k):
    """Two layers, twelve weights, every support with at most 2 of 4 in a group, k in all and one in each layer."""
    weights = {"a": draw(1, 8, seed=seed), "b": draw(1, 4, seed=seed + 100)}
    support = NOfM().support(weights, k / 12)
    flat = torch.cat([weight.flatten() for weight in weights.values()]).square().tolist()
    best = max(
        sum(value for value, bit in zip(flat, bits, strict=True) if bit)
        for bits in itertools.product((0, 1), repeat=12)
        if sum(bits) == k and all(sum(bits[i : i + 4]) <= 2 for i in (0, 4, 8)) and sum(bits[:8]) and sum(bits[8:])
    )
    found = sum(float(weights[name][mask].square().sum()) for name, mask in support.items())
    assert found == pytest.approx(best)


@pytest.mark.parametrize("arch", ["small_cnn", "resnet18", "mobilenet_v2"])
def test_networks_keep_stem_and_depthwise_layers_dense_and_all_others_in_the_pattern(arch):
    torch.manual_seed(0)
    spec = ModelSpec(arch=arch, shape=(3, 8, 8), classes=tuple("0123456789"), mean=(0.0,) * 3, std=(1.0,) * 3)
    model = build_model(spec)
    weights = prunable_parameters(model)
    scheme = PruningConfig.from_plain({"scheme": "nm"}).build(model, (3, 8, 8))
    support = scheme.support(weights, 0.5)
    dense = {
        name for name, weight in weights.items() if weight.shape[1] == 3 or (weight.dim() == 4 and weight.shape[1] == 1)
    }
    assert set(scheme.dense_layers) == dense
    for name, mask in support.items():
        if name in dense:
            assert mask.all()
        else:
            by_four = mask.flatten(2).transpose(1, 2) if mask.dim() == 4 else mask[:, None]
            assert int(by_four.unflatten(-1, (-1, 4)).sum(-1).max()) == 2
    assert sum(int(mask.sum()) for mask in support.values()) == round(0.5 * sum(w.numel() for w in weights.values()))


def test_more_than_the_pattern_holds_is_an_input_error():
    weights = {"stem": draw(4, 3), "b": draw(4, 8)}
    scheme = NOfM(dense=frozenset({"stem"}))
    assert int(scheme.support(weights, 28 / 44)["b"].sum()) == 16
    with pytest.raises(
        InputError, match=r"2:4 keeps at most 63\.64% of the weights \(1 layer\(s\) .*pruning\.keep is 0\.7; lower it"
    ):
        scheme.support(weights, 0.7)


def test_less_than_the_dense_layers_hold_is_an_input_error():
    weights = {"stem": draw(4, 3), "b": draw(4, 8)}
    with pytest.raises(InputError, match=r"keep leaves 4 weights, but 1 dense layers .* take 13; raise pruning\.keep"):
        NOfM(dense=frozenset({"stem"})).support(weights, 0.1)


def test_channels_that_groups_do_not_divide_are_an_input_error():
    with pytest.raises(InputError, match=r"b reads 6 channels, which groups of 4 do not divide; choose another"):
        NOfM().support({"a": draw(4, 8), "b": draw(4, 6)}, 0.5)


def test_the_check_sees_a_group_that_is_too_full():
    mask = torch.tensor([[True, True, False, False, False, True, True, True]])
    assert NOfM().violation({"w": mask}, 5 / 8) == "w keeps more than 2 of 4 neighbours"
    assert NOfM(dense=frozenset({"w"})).violation({"w": mask}, 5 / 8) == "w is not dense"
    assert NOfM(n=3).violation({"w": mask}, 5 / 8) is None


@hypothesis.given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.data())
def test_ties_and_zeros_never_break_the_pattern(outputs, groups, n, data):
    values = data.draw(
        st.lists(st.sampled_from([0.0, 1.0, -1.0]), min_size=outputs * groups * 4, max_size=outputs * groups * 4)
    )
    weight = torch.tensor(values).view(outputs, groups * 4)
    keep = data.draw(st.floats(0.01, n / 4))
    support = NOfM(n=n).support({"w": weight}, keep)["w"]
    assert all(sum(group) <= n for group in groups_of(support, 4))
