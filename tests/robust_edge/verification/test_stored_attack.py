import collections
import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import betabinom, hypergeom
from torch import nn

from robust_edge.attacks.pgd import Pgd
from robust_edge.config.export import GoldenSettings
from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.export import make_golden
from robust_edge.run.images import evaluation_images
from robust_edge.verification import stored_attack
from robust_edge.verification.stored_attack import RoundedGradients, other_images
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.logits import is_right
from tests.attacks.forgery import moved_back, weak_beyond

THREAT = Threat(0.1)


@pytest.fixture(scope="module")
def network(sparse_run):
    return sparse_run.load_model()


@pytest.fixture(scope="module")
def stored(sparse_run, network):
    """stored(steps, seed) -> the images that an export stores."""
    split = evaluation_images(sparse_run)
    return lambda steps, seed=0: make_golden(network, split, Pgd(steps=steps, restarts=1), THREAT, seed)


def compared(golden, network, claimed, *, seed=1, **others):
    spec = Pgd(steps=claimed, restarts=1).spec(THREAT, 0)
    return other_images(spec, golden, network, TorchOracle(network).logits, seed=seed, **others)


class InFloat64(nn.Module):
    """The same network with other rounding, as of another CPU or version of torch."""

    def __init__(self, network):
        super().__init__()
        self.network = copy.deepcopy(network).double()

    def forward(self, images):
        return self.network(images.double()).float()


@pytest.mark.parametrize("taken", [1, 2, 3, 5, 10])
def test_fewer_steps_than_claimed(taken, stored, network):
    assert "20 steps: made again from seed 0" in compared(stored(taken), network, 20)


@pytest.mark.parametrize("claimed", [1, 20, 1000])
def test_the_claimed_steps_do_not_choose_how_many_images_are_repeated(claimed, stored, network, monkeypatch):
    golden, repeated = stored(1), []

    def made_again(_, golden, __, rows, progress):
        repeated.append(len(rows))
        return golden.attacked[rows]

    monkeypatch.setattr(stored_attack, "made_again", made_again)
    for most in (250, 50):
        monkeypatch.setattr(stored_attack, "REPEATED", most)
        assert compared(golden, network, claimed) == ""
    assert repeated == [60, 50]


def test_every_repetition_shows_its_progress_step_by_step(stored, network):
    golden, shown = stored(1), collections.defaultdict(list)
    progress = lambda label: lambda done, total: shown[label].append((done, total))  # noqa: E731
    assert compared(dataclasses.replace(golden, attacked=golden.clean), network, 5, progress=progress) != ""
    assert list(shown) == ["stored attack, made again", "stored attack, made again under noise"]
    for steps in shown.values():
        assert {done / total for done, total in steps} > {1.0}
        assert steps == sorted(steps)
        assert steps.count((steps[0][1],) * 2) == 1
    assert not network._forward_hooks


def test_images_of_another_attack(stored, network):
    """Another seed; and a strong attack on the first images alone."""
    assert compared(stored(20, seed=1), network, 20) != ""
    honest, weak = stored(20), stored(1)
    assert compared(weak_beyond(40, weak)(honest), network, 20) != ""
    assert compared(dataclasses.replace(honest, attacked=honest.clean), network, 20) != ""


def test_an_honest_attack_is_made_again(stored, network, monkeypatch):
    golden, threads = stored(5), torch.get_num_threads()
    monkeypatch.setattr(stored_attack, "SAME_PIXELS", 0.0)  # on one machine every pixel is the same
    monkeypatch.setattr(stored_attack, "batch_size", lambda *_: 17)
    torch.set_num_threads(2 if threads == 1 else 1)
    try:
        assert compared(golden, network, 5) == ""
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("taken", [10, 20, 50])
def test_rounding_leaves_room(taken, stored, network, monkeypatch):
    """Four times over: gradients in fp64, and weights under noise of one part in a million."""
    noisy, generator = copy.deepcopy(network), torch.Generator().manual_seed(0)
    for weights in noisy.parameters():
        weights.data *= 1 + 1e-6 * torch.randn(weights.shape, generator=generator)
    monkeypatch.setattr(stored_attack, "SAME_PIXELS", stored_attack.SAME_PIXELS / 4)
    for other in (InFloat64(network), noisy):
        assert compared(stored(taken), other, taken) == ""


def exported_with(rounding, network, split, steps=20):
    """What an export stores whose gradients have this relative error."""
    return make_golden(RoundedGradients(network, rounding).eval(), split, Pgd(steps=steps, restarts=1), THREAT, 0)


def test_rounding_that_moves_many_pixels_of_this_network_is_allowed(stored, sparse_run, network, monkeypatch):
    """As in deep networks, where a sign that turns changes all later steps; here by larger errors of the gradients."""
    golden = exported_with(1e-3, network, evaluation_images(sparse_run))
    assert "rounding explains 2%" in compared(golden, network, 20)
    monkeypatch.setattr(stored_attack, "ROUNDING", 1e-3)
    assert compared(golden, network, 20) == ""
    assert "made again from seed 0" in compared(stored(10), network, 20)
    assert "made again from seed 0" in compared(stored(20, seed=1), network, 20)


def test_where_rounding_moves_most_pixels_the_outcomes_are_compared(stored, sparse_run, network, monkeypatch):
    monkeypatch.setattr(stored_attack, "ROUNDING", 1e-2)
    golden = exported_with(1e-2, network, evaluation_images(sparse_run))
    assert compared(golden, network, 20) == ""
    unmoved = dataclasses.replace(golden, attacked=golden.clean)
    assert "that the stored attack does not" in compared(unmoved, network, 20)


@pytest.mark.parametrize("steps", [20, 50])
def test_broken_images_moved_back_over_the_decision_boundary(steps, stored, network, monkeypatch):
    """They lie just beyond it, so that a small step makes most of them right again."""
    score = TorchOracle(network).logits
    golden = stored(steps)
    broken = is_right(golden.clean_logits, golden.labels) & ~is_right(golden.attacked_logits, golden.labels)
    forged = moved_back(golden, broken, 0.098)
    mended = int((broken & is_right(score(forged.attacked), golden.labels)).sum())
    assert mended >= 12  # of 60
    monkeypatch.setattr(stored_attack, "SAME_PIXELS", 1.0)  # few pixels of many images, chosen well, do the same
    assert "that the stored attack does not, which rounding does not explain" in compared(forged, network, steps)
    monkeypatch.undo()
    monkeypatch.setattr(stored_attack, "_other_outcomes", lambda *_: "")
    assert "gives other values" in compared(forged, network, steps)


def test_images_that_the_repetition_leaves_right(sparse_run, network, monkeypatch):
    """Those of a larger ε."""
    broken = make_golden(network, evaluation_images(sparse_run), Pgd(steps=20, restarts=1), Threat(0.2), 0)
    monkeypatch.setattr(stored_attack, "SAME_PIXELS", 1.0)
    assert "images right that the stored attack breaks" in compared(broken, network, 20)


@pytest.mark.parametrize("images", [3, 50, 150, 250])
def test_two_outcomes_show_something_if_noise_turns_neither(images):
    """A bundle of few images, or of many steps, does not choose how much of its robust accuracy may be false."""
    assert found_by_outcomes(images, turned=2)[0]
    assert not found_by_outcomes(images, turned=1)[0]
    assert not found_by_outcomes(images, turned=2, explained=1)[0]


@pytest.mark.parametrize("turned", [2, 3, 20, 250])
def test_the_noise_costs_a_bounded_number_of_attacks(turned):
    """Of many turned images only some are made again under noise, together at most 250 times."""
    found, tries = found_by_outcomes(250, turned=turned)
    assert found
    assert 240 <= len(tries) <= 250
    assert len(set(tries)) == min(turned, 5)
    assert set(np.unique(tries, return_counts=True)[1]) == {250 // min(turned, 5)}


def test_images_that_the_noise_turns_once_are_explained():
    assert not found_by_outcomes(250, turned=100, explained=100)[0]


def found_by_outcomes(images, turned, explained=0):
    """Whether the outcomes are others, and what was made again under noise.

    Images are 1 where they are right; the repetition breaks all, and the last of the noise turns the first `explained`.
    """
    tried = []

    def under_noise(rows):
        tried.extend(rows)
        last = np.arange(len(rows)) >= len(rows) - len(set(rows))
        return ((rows < explained) & last)[:, None, None, None] * 1.0

    repetition = SimpleNamespace(
        golden=SimpleNamespace(labels=np.ones(images, int)),
        rows=np.arange(images),
        images=np.zeros((images, 1, 1, 1)),
        stored=(np.arange(images)[:, None, None, None] < turned) * 1.0,
        under_noise=under_noise,
    )
    found = stored_attack._other_outcomes(
        repetition, lambda items: np.eye(2)[items.reshape(-1).astype(int)], np.random.default_rng(0)
    )
    return found != "", tried


def test_the_chances_that_the_docs_state():
    """Of false images among 500 that are drawn, and of outcomes that rounding turns, after none of 5,886."""
    drawn = stored_attack.REPEATED
    missed = [hypergeom.cdf(stored_attack.FEWEST - 1, 500, false, drawn) for false in (20, 10)]
    assert [round(1 - chance, 2) for chance in missed] == [0.98, 0.77]
    turned = betabinom(drawn, 1, 5887)
    assert round(1 / turned.sf(1), -2) == 2200
    assert round(1 / turned.sf(2), -5) == 100_000


@pytest.mark.parametrize("steps", [0, 1001])
def test_export_takes_as_many_steps_as_verify_repeats(steps):
    with pytest.raises(InputError, match="steps must be 1 to 1000"):
        GoldenSettings(steps=steps)
