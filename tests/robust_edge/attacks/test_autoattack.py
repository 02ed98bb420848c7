"""Both AutoAttack sets against the reference implementation called directly, image by image."""

import pytest
import torch
from torch import nn

from robust_edge.attacks.attack import Batch
from robust_edge.attacks.autoattack import AutoAttack, ThesisAutoAttack
from robust_edge.config.settings import resolve
from robust_edge.data.digits import load_digits
from robust_edge.evaluation.campaign import Campaign, run_campaign, stages_of
from robust_edge_runtimes.attacks.threat import LINF, Threat
from robust_edge_runtimes.core.errors import InputError
from tests.short_autoattack import shorten

pyautoattack = pytest.importorskip("pyautoattack", reason="the extra `attack` is not installed")
COUNT, FULL, BATCH, EPS = 12, 16, 5, 0.12
WEAK = 0.06
"""The radius for the network of two layers, which is weaker."""


@pytest.fixture
def images(judged):
    model, split = judged
    return model, split.first(COUNT)


@pytest.fixture
def at_full_length(judged, monkeypatch):
    """The reference as it is; a network of two layers, and images in one batch, take it seconds instead of minutes."""
    monkeypatch.undo()
    _, split = judged
    return two_layers(load_digits(resolve(preset="quick").data).train), split.first(FULL)


def two_layers(split):
    """A small network that is right on most images."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    images, optimizer = split.floats(slice(None)), torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), split.labels).backward()
        optimizer.step()
    model.zero_grad()
    return model.eval()


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    shorten(monkeypatch)


def ours(model, split, attack, norm, eps, batch=BATCH):
    stages = stages_of("set", attack, Threat(eps, norm), 10)
    campaign = Campaign(
        model=model,
        evaluated=(model,),
        split=split,
        positions=tuple(range(len(split))),
        stages=stages,
        cumulative=True,
        batch_size=batch,
        identity="test",
        seed=3,
    )
    return {stage.name: stage.attack for stage in stages}, run_campaign(campaign)


@pytest.mark.parametrize(("norm", "name", "eps"), [("linf", "Linf", EPS), ("l2", "L2", 0.6)])
def test_the_standard_set_is_the_references_own_evaluation(images, norm, name, eps):
    model, split = images
    _, result = ours(model, split, AutoAttack(), norm, eps)
    suite = pyautoattack.AutoAttack(model, norm=name, eps=eps, version="standard", seed=3)
    suite.verbose = False
    clean = split.floats(slice(None))
    adversarial, _ = suite.run_standard_evaluation(clean, split.labels, batch_size=BATCH)
    with torch.no_grad():
        expected = (model(adversarial).argmax(1) == split.labels) & (model(clean).argmax(1) == split.labels)
    held = result.robust[-1, 0]
    assert torch.equal(held, expected)
    assert 0 < int(held.sum()) < int(result.clean.sum()), "the radius shows nothing if all hold or all fall"
    assert sum(result.outside) == 0


def one_by_one(model, split, stages, *, batch=BATCH, eps=EPS):
    """Which images hold after each stage of the thesis' set, its attacks called by hand."""
    suite = pyautoattack.AutoAttack(model, norm="Linf", eps=eps, attacks=["apgd-ce"], version="custom", seed=3)
    calls = {
        "apgd-ce": (suite.apgd, {"loss": "ce"}),
        "apgd-dlr": (suite.apgd, {"loss": "dlr"}),
        "fab": (suite.fab, {"targeted": False}),
        "square": (suite.square, {}),
    }
    clean, labels = split.floats(slice(None)), split.labels
    with torch.no_grad():
        alive = model(clean).argmax(1) == labels
    held = []
    for name in stages:
        attack, settings = calls[name]
        for key, value in settings.items():
            setattr(attack, key, value)
        after = alive.clone()
        for rows in alive.nonzero().squeeze(1).split(batch):
            attack.seed = 3
            candidates = attack.perturb(clean[rows].clone(), labels[rows].clone())
            with torch.no_grad():
                after[rows] = model(candidates).argmax(1) == labels[rows]
        held.append(after)
        alive = after
    return held


def test_the_thesis_set_is_its_attacks_called_one_by_one(images):
    model, split = images
    attacks, result = ours(model, split, ThesisAutoAttack(), "linf", EPS)
    names = [*attacks]
    for name, held, expected in zip(names, result.robust[:, 0], one_by_one(model, split, names), strict=True):
        assert torch.equal(held, expected), name
    assert [attack.restarts for attack in attacks.values()] == [5, 5, 5, 1]


@pytest.mark.parametrize("attack", [AutoAttack(), ThesisAutoAttack()])
def test_global_randomness_gradients_and_mode_are_left_alone(images, attack):
    model, split = images
    model.train()
    before = torch.get_rng_state()
    for member in attack.members(10).values():
        member.perturb(model, Batch(split.floats(slice(0, 3)), split.labels[:3], range(3), 1), Threat(EPS))
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert model.training


def test_few_classes_get_fewer_targets_or_a_reason():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 4))
    attacks = AutoAttack().members(4)
    assert list(attacks) == list(AutoAttack.names)
    assert attacks["apgd-t"].targets == attacks["fab-t"].targets == 3
    for attack in attacks.values():  # more targets than classes would end in an IndexError
        labels = torch.tensor([0, 1, 2])
        attack.perturb(model, Batch(torch.rand(3, 1, 2, 2), labels, range(3), 0), Threat(0.1))
    with pytest.raises(InputError, match="at least 4 classes"):
        AutoAttack().members(3)
    with pytest.raises(InputError, match="at least 3 classes"):
        ThesisAutoAttack().members(2)


def test_the_full_sets_are_those_of_the_papers(images, monkeypatch):
    monkeypatch.undo()
    facts = [
        [(a.name, a.iterations or a.queries, a.restarts, a.targets) for a in attack.members(10).values()]
        for attack in (AutoAttack(), ThesisAutoAttack())
    ]
    assert facts == [
        [("apgd-ce", 100, 1, None), ("apgd-t", 100, 1, 9), ("fab-t", 100, 1, 9), ("square", 5000, 1, None)],
        [
            ("apgd-ce", 100, 5, None),
            ("apgd-dlr", 100, 5, None),
            ("fab", 100, 5, None),
            ("square", 5000, 1, None),
        ],
    ]


@pytest.mark.slow
def test_at_full_length_too_the_standard_set_is_the_references_own_evaluation(at_full_length):
    """All iterations, targets and queries of the paper; benchmarks/autoattack_agreement.py has more images."""
    model, split = at_full_length
    attacks, result = ours(model, split, AutoAttack(), "linf", WEAK, batch=FULL)
    assert [a.iterations or a.queries for a in attacks.values()] == [100, 100, 100, 5000]
    suite = pyautoattack.AutoAttack(model, norm="Linf", eps=WEAK, version="standard", seed=3)
    suite.verbose = False
    clean = split.floats(slice(None))
    adversarial, _ = suite.run_standard_evaluation(clean, split.labels, batch_size=FULL)
    with torch.no_grad():
        expected = (model(adversarial).argmax(1) == split.labels) & (model(clean).argmax(1) == split.labels)
    assert torch.equal(result.robust[-1, 0], expected)
    assert 0 < int(expected.sum()) < int(result.clean.sum())


@pytest.mark.slow
def test_at_full_length_too_the_thesis_set_is_its_attacks_called_one_by_one(at_full_length):
    """All restarts, iterations and queries of the thesis."""
    model, split = at_full_length
    attacks, result = ours(model, split, ThesisAutoAttack(), "linf", WEAK, batch=FULL)
    settings = [(a.iterations or a.queries, a.restarts) for a in attacks.values()]
    assert settings == [(100, 5), (100, 5), (100, 5), (5000, 1)]
    names = [*attacks]
    expected = one_by_one(model, split, names, batch=FULL, eps=WEAK)
    for name, held, theirs in zip(names, result.robust[:, 0], expected, strict=True):
        assert torch.equal(held, theirs), name
    assert 0 < int(result.robust[-1, 0].sum()) < int(result.clean.sum())


def test_a_set_attacks_by_itself_what_its_stages_attack(images):
    """As one attack it keeps the first candidate that fools, so that the same images hold."""
    model, split = images
    clean, labels = split.floats(slice(None)), split.labels
    _, result = ours(model, split, AutoAttack(), LINF, EPS, batch=COUNT)
    found = AutoAttack().perturb(model, Batch(clean, labels, range(COUNT), 3), Threat(EPS))
    with torch.no_grad():
        held = (model(found).argmax(1) == labels) & (model(clean).argmax(1) == labels)
    assert torch.equal(held, result.robust[-1, 0])
