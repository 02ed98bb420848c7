"""Pruning in a loop of one's own: any optimizer, any scheme, interrupted and resumed."""

import dataclasses
import io

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from robust_edge import pruning
from robust_edge.pruning import admm
from robust_edge.pruning.prunable import budget_of
from robust_edge.pruning.schemes.counts import even_counts
from robust_edge.pruning.schemes.irregular import Irregular
from robust_edge.pruning.schemes.scheme import Scheme, largest
from robust_edge_runtimes.core.errors import InputError
from tests.traced import traced

SHAPE = (2, 6, 6)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Even(Scheme):
    """The same fraction of every layer."""

    def support_impl(self, weights, keep):
        sizes = {name: weight.numel() for name, weight in weights.items()}
        counts = even_counts(sizes, budget_of(weights, keep))
        return {name: largest(weight, counts[name]) for name, weight in weights.items()}


SCHEMES = ("irregular", Irregular(scope="layer"), Even(), f"{__name__}:Even", "filter")


def network(norm=lambda layer: layer):
    torch.manual_seed(0)
    return nn.Sequential(norm(nn.Conv2d(2, 8, 3)), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 3))


def optimizer_of(model, kind=torch.optim.SGD):
    settings = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    return kind(model.parameters(), 0.01, weight_decay=0.1, **settings)


def batch_of(number):
    generator = torch.Generator().manual_seed(number)
    return torch.rand(12, *SHAPE, generator=generator), torch.randint(0, 3, (12,), generator=generator)


def train(model, optimizer, state, numbers):
    for number in numbers:
        images, labels = batch_of(number)
        loss = functional.cross_entropy(model(images), labels) + pruning.penalty(state, model)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state = pruning.step(state, model)
    return state


def counts(model):
    return {name: int(weight.count_nonzero()) for name, weight in pruning.prunable_parameters(model).items()}


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_the_network_ends_and_stays_in_the_set(scheme, kind):
    model = network()
    optimizer = optimizer_of(model, kind)
    state = pruning.init(model, SHAPE, keep=0.25, scheme=scheme, rho=0.01)
    state = train(model, optimizer, state, range(4))
    assert pruning.penalty(state, model) != 0
    state = pruning.finish(state, model, optimizer)
    assert not optimizer.state
    zeros = {name: weight == 0 for name, weight in pruning.prunable_parameters(model).items()}
    assert (
        state.scheme.violation({name: mask != 0 for name, mask in state.masks.items() if name in zeros}, 0.25) is None
    )
    total = sum(mask.numel() for mask in zeros.values())
    kept = sum(counts(model).values())
    assert kept <= round(0.25 * total) if scheme == "filter" else kept == round(0.25 * total)
    for number in range(4, 8):
        state = train(model, optimizer, state, [number])
        assert all(not weight[zeros[name]].any() for name, weight in pruning.prunable_parameters(model).items())
    assert pruning.penalty(state, model) == 0


def test_the_penalty_has_the_gradient_that_training_adds():
    model, other = network(), network()
    state = pruning.init(model, SHAPE, keep=0.25, rho=0.5)
    for dual in state.admm.dual.values():
        dual.normal_()
    pruning.penalty(state, model).backward()
    for parameter in other.parameters():
        parameter.grad = torch.zeros_like(parameter)
    admm.add_penalty_gradient(state.admm, pruning.prunable_parameters(traced(other, SHAPE)))
    for name, weight in pruning.prunable_parameters(model).items():
        assert torch.allclose(weight.grad, other.get_parameter(name).grad, atol=1e-6), name


def test_theta_and_u_follow_the_equations():
    model = network()
    optimizer = optimizer_of(model)
    state = pruning.init(model, SHAPE, keep=0.25, rho=0.5, rho_growth=2.0, rho_max=0.8)
    first = state.admm
    state = train(model, optimizer, state, [0])
    weights = pruning.prunable_parameters(model)
    for name, weight in weights.items():
        assert torch.allclose(state.admm.dual[name], 0.5 * (weight - first.target[name]))  # Eq. (9)
    moved = {name: weight.detach() + state.admm.dual[name] / 0.8 for name, weight in weights.items()}
    expected = state.scheme.project(moved, 0.25)  # Eq. (7)
    assert all(torch.equal(state.admm.target[name], expected[name]) for name in weights)
    assert state.admm.rho == 0.8


@pytest.mark.parametrize("norm", [lambda layer: layer, parametrizations.weight_norm], ids=["plain", "weight_norm"])
@pytest.mark.parametrize("interrupted", [3, 7])
def test_a_saved_state_goes_on_as_if_nothing_had_happened(interrupted, norm):
    """In the ADMM phase, and under the mask."""

    def begin():
        model = network(norm)
        optimizer = optimizer_of(model)
        return model, optimizer, pruning.init(model, SHAPE, keep=0.25, rho=0.01)

    def go_on(model, optimizer, state, first, last):
        for number in range(first, last):
            state = pruning.finish(state, model, optimizer) if number == 5 else state
            state = train(model, optimizer, state, [number])
        return state

    whole = begin()
    go_on(*whole, 0, 9)
    model, optimizer, state = begin()
    state = go_on(model, optimizer, state, 0, interrupted)
    file = io.BytesIO()
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "pruning": state.state_dict()}
    torch.save(saved, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    model, optimizer, state = begin()
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    state = state.load_state_dict(saved["pruning"], model, optimizer)
    go_on(model, optimizer, state, interrupted, 9)
    pairs = zip(whole[0].state_dict().items(), model.state_dict().values(), strict=True)
    assert all(torch.equal(left, right) for (_, left), right in pairs)


@pytest.mark.parametrize("norm", [lambda layer: layer, parametrizations.weight_norm], ids=["plain", "weight_norm"])
def test_the_zeros_of_a_sparse_network_are_held(norm):
    model = network()
    with torch.no_grad():
        for layer in (model[0], model[4]):
            layer.weight.masked_fill_(torch.rand_like(layer.weight) < 0.5, 0)
    norm(model[0])
    optimizer = optimizer_of(model)
    handle = pruning.attach_masks(model, optimizer, shape=SHAPE)
    zeros = {name: weight == 0 for name, weight in pruning.prunable_parameters(model).items()}
    images, labels = batch_of(0)
    for _ in range(3):
        functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        found = pruning.prunable_parameters(pruning.materialised(model))
        assert all(torch.equal(found[name] == 0, zeros[name]) for name in zeros)
    handle.remove()
    optimizer.step()
    assert not torch.equal(model[4].weight == 0, zeros["4.weight"])


def test_a_sparser_set_keeps_the_zeros_that_were_attached_before():
    model = network()
    with torch.no_grad():
        model[0].weight[:, 0] = 0
    optimizer = optimizer_of(model)
    pruning.attach_masks(model, optimizer, shape=SHAPE)
    state = train(model, optimizer, pruning.init(model, SHAPE, keep=0.3), range(3))
    state = train(model, optimizer, pruning.finish(state, model, optimizer), range(3))
    assert not model[0].weight[:, 0].any()
    assert 0 < sum(counts(model).values()) <= round(0.3 * (144 + 384))


class Functional(nn.Module):
    """Weights that no layer owns under the name `weight`."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 2, 3, 3))
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        tokens = functional.conv2d(x, self.kernel).flatten(2).mT
        return self.attention(tokens, tokens, tokens)[0].mean(1)


def test_zeros_are_held_in_weights_of_any_owner():
    model = Functional()
    with torch.no_grad():
        model.kernel[:, 0] = 0
        model.attention.in_proj_weight[::2] = 0
    optimizer = optimizer_of(model)
    with pytest.raises(InputError, match="are not known"):
        pruning.attach_masks(model, optimizer)
    pruning.attach_masks(model, optimizer, shape=SHAPE)
    functional.cross_entropy(model(batch_of(0)[0]), batch_of(0)[1]).backward()
    before = model.kernel.clone()
    optimizer.step()
    assert not model.kernel[:, 0].any()
    assert not model.attention.in_proj_weight[::2].any()
    assert not torch.equal(model.kernel, before)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"keep": 0.0}, "`keep` must be a fraction above 0, at most 1; it is 0.0"),
        ({"keep": 1.5}, "it is 1.5"),
        ({"keep": 0.1, "scheme": "irregula"}, "did you mean 'irregular'"),
        ({"keep": 0.001}, "raise pruning.keep"),
    ],
)
def test_what_cannot_be_done_is_one_line(settings, says):
    with pytest.raises(InputError, match=says) as caught:
        pruning.init(network(), SHAPE, **settings)
    assert "\n" not in str(caught.value)
