"""Both AutoAttack sets against the reference implementation called directly, image by image."""

import dataclasses

import pytest
import torch

from robust_edge.attacks.autoattack import STAGES, STANDARD, THESIS, AutoAttackSettings, reference_attacks
from robust_edge.evaluation.adversaries import AUTOATTACK, THESIS_AUTOATTACK, Adversary, stages_of
from robust_edge.evaluation.campaign import Campaign, run_campaign
from robust_edge_runtimes.core.errors import InputError

pyautoattack = pytest.importorskip("pyautoattack", reason="the extra `attack` is not installed")
CPU = torch.device("cpu")
COUNT, FULL, BATCH, EPS = 12, 16, 5, 0.12


@pytest.fixture
def images(judged):
    model, split = judged
    return model, split.first(COUNT)


@pytest.fixture
def at_full_length(judged, monkeypatch):
    """The reference as it is, and images for it: all in one batch, which costs little more than a few."""
    monkeypatch.undo()
    model, split = judged
    return model, split.first(FULL)


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """The reference with a tenth of its iterations: the same code, in seconds."""
    constructor = pyautoattack.AutoAttack.__init__

    def shorter(self, *arguments, **settings):
        constructor(self, *arguments, **settings)
        for attack in (self.apgd, self.apgd_targeted):
            attack.n_iter = attack.n_iter_orig = 12
            attack.n_iter_2, attack.n_iter_min, attack.size_decr = 3, 1, 1
        self.fab.n_iter, self.square.n_queries = 8, 150

    monkeypatch.setattr(pyautoattack.AutoAttack, "__init__", shorter)


def ours(model, split, attack, norm, eps, batch=BATCH):
    adversary = Adversary(attack=attack, eps=eps, norm=norm, seed=3)
    spec, stages = stages_of(model, adversary, classes=10, batch_size=batch, device=CPU)
    campaign = Campaign(
        judges=(model,),
        split=split,
        positions=tuple(range(len(split))),
        stages=stages,
        cumulative=True,
        batch_size=batch,
        identity="test",
    )
    return spec, run_campaign(campaign)


@pytest.mark.parametrize(("norm", "name", "eps"), [("linf", "Linf", EPS), ("l2", "L2", 0.6)])
def test_the_standard_set_is_the_references_own_evaluation(images, norm, name, eps):
    model, split = images
    _, tally = ours(model, split, AUTOATTACK, norm, eps)
    suite = pyautoattack.AutoAttack(model, norm=name, eps=eps, version="standard", seed=3)
    suite.verbose = False
    clean = split.floats(slice(None))
    adversarial, _ = suite.run_standard_evaluation(clean, split.labels, batch_size=BATCH)
    with torch.no_grad():
        expected = (model(adversarial).argmax(1) == split.labels) & (model(clean).argmax(1) == split.labels)
    held = tally.held[-1, 0]
    assert torch.equal(held, expected)
    assert 0 < int(held.sum()) < int(tally.clean.sum()), "the radius shows nothing if all hold or all fall"
    assert sum(tally.outside) == 0


def one_by_one(model, split, stages, batch=BATCH):
    """Which images hold after each stage of the thesis' set, its attacks called by hand."""
    suite = pyautoattack.AutoAttack(model, norm="Linf", eps=EPS, attacks=["apgd-ce"], version="custom", seed=3)
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
    spec, tally = ours(model, split, THESIS_AUTOATTACK, "linf", EPS)
    names = [stage.name for stage in spec.stages]
    for name, held, expected in zip(names, tally.held[:, 0], one_by_one(model, split, names), strict=True):
        assert torch.equal(held, expected), name
    assert [stage.restarts for stage in spec.stages] == [5, 5, 5, 1]


@pytest.mark.parametrize("version", [STANDARD, THESIS])
def test_global_randomness_gradients_and_mode_are_left_alone(images, version):
    model, split = images
    settings = AutoAttackSettings(version=version, eps=EPS, seed=1, classes=10)
    model.train()
    before = torch.get_rng_state()
    for attack in reference_attacks(model, settings, CPU):
        attack.perturb(split.floats(slice(0, 3)), split.labels[:3])
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert model.training


def test_few_classes_get_fewer_targets_or_a_reason():
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 4))
    settings = AutoAttackSettings(version=STANDARD, eps=0.1, classes=4)
    attacks = {attack.name: attack for attack in reference_attacks(model, settings, CPU)}
    assert list(attacks) == list(STAGES[STANDARD])
    assert attacks["apgd-t"].targets == attacks["fab-t"].targets == 3
    for attack in attacks.values():  # more targets than classes would end in an IndexError
        attack.perturb(torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 2]))
    with pytest.raises(InputError, match="at least 4 classes"):
        dataclasses.replace(settings, classes=3)
    with pytest.raises(InputError, match="at least 3 classes"):
        AutoAttackSettings(version=THESIS, eps=0.1, classes=2)


def test_the_full_sets_are_those_of_the_papers(images, monkeypatch):
    monkeypatch.undo()
    model, _ = images
    facts = {
        version: [
            (a.name, a.iterations, a.restarts, a.targets)
            for a in reference_attacks(model, AutoAttackSettings(version=version, eps=EPS, classes=10), CPU)
        ]
        for version in STAGES
    }
    assert facts == {
        STANDARD: [("apgd-ce", 100, 1, None), ("apgd-t", 100, 1, 9), ("fab-t", 100, 1, 9), ("square", 5000, 1, None)],
        THESIS: [
            ("apgd-ce", 100, 5, None),
            ("apgd-dlr", 100, 5, None),
            ("fab", 100, 5, None),
            ("square", 5000, 1, None),
        ],
    }


@pytest.mark.slow
def test_at_full_length_too_the_standard_set_is_the_references_own_evaluation(at_full_length):
    """All iterations, targets and queries of the paper; benchmarks/autoattack_agreement.py has more images."""
    model, split = at_full_length
    spec, tally = ours(model, split, AUTOATTACK, "linf", EPS, batch=FULL)
    assert [stage.iterations for stage in spec.stages] == [100, 100, 100, 5000]
    suite = pyautoattack.AutoAttack(model, norm="Linf", eps=EPS, version="standard", seed=3)
    suite.verbose = False
    clean = split.floats(slice(None))
    adversarial, _ = suite.run_standard_evaluation(clean, split.labels, batch_size=FULL)
    with torch.no_grad():
        expected = (model(adversarial).argmax(1) == split.labels) & (model(clean).argmax(1) == split.labels)
    assert torch.equal(tally.held[-1, 0], expected)
    assert 0 < int(expected.sum()) < int(tally.clean.sum())


@pytest.mark.slow
def test_at_full_length_too_the_thesis_set_is_its_attacks_called_one_by_one(at_full_length):
    """All restarts, iterations and queries of the thesis."""
    model, split = at_full_length
    spec, tally = ours(model, split, THESIS_AUTOATTACK, "linf", EPS, batch=FULL)
    assert [(stage.iterations, stage.restarts) for stage in spec.stages] == [(100, 5), (100, 5), (100, 5), (5000, 1)]
    names = [stage.name for stage in spec.stages]
    expected = one_by_one(model, split, names, batch=FULL)
    for name, held, theirs in zip(names, tally.held[:, 0], expected, strict=True):
        assert torch.equal(held, theirs), name
    assert 0 < int(tally.held[-1, 0].sum()) < int(tally.clean.sum())
