"""Blocks along the input channels: against every support of small layers, and on the networks of the zoo."""

import itertools

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from robust_edge.models import ModelSpec, build_model
from robust_edge.pruning.layout import layout_of
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge.pruning.schemes.block import Block
from robust_edge.pruning.settings import PruningConfig
from robust_edge_runtimes.core.errors import InputError


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blocks_of(tensor, size):
    """Every block by loops: one output, one position, `size` neighbouring inputs."""
    for output in range(tensor.shape[0]):
        for position in itertools.product(*(range(extent) for extent in tensor.shape[2:])):
            for first in range(0, tensor.shape[1], size):
                yield [tensor[(output, channel, *position)].item() for channel in range(first, first + size)]


@pytest.mark.parametrize("size", [2, 4, 8])
@pytest.mark.parametrize("shape", [(3, 8, 3, 3), (4, 16), (2, 8, 3)])
def test_the_blocks_of_largest_norm_are_kept(size, shape):
    weight = draw(*shape)
    support = Block(size=size, scope="layer").support({"w": weight}, 0.5)["w"]
    energy = [sum(value**2 for value in block) for block in blocks_of(weight, size)]
    kept = [block for block in blocks_of(support, size)]
    count = weight.numel() // 2 // size
    largest = sorted(range(len(energy)), key=lambda i: -energy[i])[:count]
    assert [all(block) for block in kept] == [i in largest for i in range(len(kept))]
    assert all(any(block) == all(block) for block in kept)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("k", [8, 13, 20])
def test_no_allowed_support_is_nearer(seed, k):
    """Two layers, ten blocks of four, every choice of k // 4 of them with at least one in each layer."""
    weights = {"a": draw(3, 8, seed=seed), "b": draw(2, 8, seed=seed + 100)}
    support = Block().support(weights, k / 40)
    energy = [sum(v**2 for v in block) for weight in weights.values() for block in blocks_of(weight, 4)]
    choices = (c for c in itertools.combinations(range(10), k // 4) if c[0] < 6 <= c[-1])
    best = max(sum(energy[i] for i in choice) for choice in choices)
    assert sum(float(weights[name][mask].square().sum()) for name, mask in support.items()) == pytest.approx(best)


def built(arch, keep, **settings):
    torch.manual_seed(0)
    spec = ModelSpec(arch=arch, shape=(3, 16, 16), classes=tuple("0123456789"), mean=(0.0,) * 3, std=(1.0,) * 3)
    model = build_model(spec)
    scheme = PruningConfig.from_plain({"scheme": "block", "keep": keep, **settings}).build(model, (3, 16, 16))
    return model, scheme, scheme.support(prunable_parameters(model), keep)


@pytest.mark.parametrize("scope", ["global", "layer", "macs"])
@pytest.mark.parametrize("arch", ["small_cnn", "resnet18", "mobilenet_v2"])
def test_networks_keep_stem_and_depthwise_layers_dense_and_whole_blocks_elsewhere(arch, scope):
    keep = 0.2
    most = 0.5 if scope == "macs" else None
    model, scheme, support = built(arch, keep, scope=scope, macs=most)
    odd = {name for name, mask in support.items() if mask.shape[1] % 4}
    assert set(scheme.dense_layers) == odd
    assert odd
    for name, mask in support.items():
        assert mask.all() if name in odd else mask.any()
        by_four = mask.movedim(1, -1).unflatten(-1, (-1, 1 if name in odd else 4))
        assert torch.equal(by_four.any(-1), by_four.all(-1))
    budget = round(keep * sum(mask.numel() for mask in support.values()))
    assert budget - 4 < sum(int(mask.sum()) for mask in support.values()) <= budget
    if scope == "macs":
        layout = layout_of(model, (3, 16, 16))
        assert layout.macs(support) <= most * layout.macs(
            {name: torch.ones_like(mask) for name, mask in support.items()}
        )


@hypothesis.given(seed=st.integers(0, 1000), k=st.integers(8, 72))
@hypothesis.settings(max_examples=40, deadline=None)
def test_projection_is_idempotent(seed, k):
    weights = {"a": draw(4, 8, 1, 1, seed=seed), "b": draw(5, 8, seed=seed + 1)}
    once = Block().project(weights, k / 72)
    twice = Block().project(once, k / 72)
    assert all(torch.equal(once[name], twice[name]) for name in weights)


def test_supports_that_violate_the_constraint_are_described():
    support = {"w": torch.zeros(2, 8, dtype=torch.bool)}
    support["w"][0, :4] = True
    assert Block().violation(support, 4 / 16) is None
    assert "5 weights" not in str(Block().violation(support, 7 / 16))
    assert "keep 0.5 requires 8" in Block().violation(support, 8 / 16)
    support["w"][1, 2:6] = True
    assert "part of a block" in Block().violation(support, 8 / 16)
    dense = Block(dense=frozenset({"w"}))
    assert "not dense" in dense.violation(support, 8 / 16)


def test_impossible_choices_are_refused():
    with pytest.raises(InputError, match=r"pruning\.size must be 2, 4 or 8; it is 3"):
        Block(size=3)
    with pytest.raises(InputError, match="no layer reads a multiple of 4"):
        Block(dense=frozenset({"w"})).support({"w": draw(4, 3)}, 0.5)
    weights = {"stem": draw(8, 3, 3, 3), "w": draw(4, 8)}
    with pytest.raises(InputError, match="stay dense and take 216"):
        Block(dense=frozenset({"stem"})).support(weights, 0.5)
    with pytest.raises(InputError, match=r"raise pruning\.macs"):
        built("small_cnn", 0.2, scope="macs", macs=0.001)
