import copy
import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
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

THREAT = Threat(0.1)


@pytest.fixture(scope="module")
def network(sparse_run):
    return sparse_run.load_model()


@pytest.fixture(scope="module")
def stored(sparse_run, network):
    """stored(steps, seed) -> the images that an export stores."""
    split = evaluation_images(sparse_run)
    return lambda steps, seed=0: make_golden(network, split, Pgd(steps=steps, restarts=1), THREAT, seed)


def compared(golden, network, claimed, *, steps=20, seed=1):
    spec = Pgd(steps=claimed, restarts=1).spec(THREAT, 0)
    return other_images(spec, golden, network, TorchOracle(network).logits, steps=steps, seed=seed)


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


def test_more_steps_than_the_modes_take_are_all_repeated_on_fewer_images(stored, network, monkeypatch):
    """But on 64 at least, so that a bundle cannot choose to have a few looked at by claiming many steps."""
    assert len(chosen(stored(1), claimed=1000)) == len(stored(1).labels) < stored_attack.LEAST_REPEATED == 64
    monkeypatch.setattr(stored_attack, "LEAST_REPEATED", 20)
    assert len(chosen(stored(1), claimed=1000)) == 20
    assert "100 steps: made again from seed 0 on 20 images" in compared(stored(20), network, 100, steps=5)
    assert compared(stored(50), network, 50) == ""


def chosen(golden, claimed):
    return stored_attack._chosen(golden, Pgd(steps=claimed).spec(THREAT, 0), steps=20, seed=1)


def test_images_of_another_attack(stored, network):
    """Another seed; and a strong attack on the first images alone."""
    assert compared(stored(20, seed=1), network, 20) != ""
    honest, weak = stored(20), stored(1)
    attacked = np.concatenate([honest.attacked[:40], weak.attacked[40:]])
    assert compared(dataclasses.replace(honest, attacked=attacked), network, 20) != ""
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


def moved_back(golden, rows, share):
    """These images moved towards the clean ones, by a share of ε at every pixel."""
    attacked, step = golden.attacked.copy(), share * THREAT.eps
    attacked[rows] += np.clip(golden.clean - attacked, -step, step)[rows]
    return dataclasses.replace(golden, attacked=attacked)


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
    assert "it leaves right" in compared(broken, network, 20)


@pytest.mark.parametrize(("images", "fewest"), [(3, 3), (50, 3), (149, 3), (150, 4), (250, 6)])
def test_few_outcomes_show_something_if_noise_turns_none(images, fewest):
    """A bundle of few images, or of many steps, does not choose how much of its robust accuracy may be false."""
    assert found_by_outcomes(images, turned=fewest, by_noise=0)
    assert not found_by_outcomes(images, turned=fewest - 1, by_noise=0)
    assert not found_by_outcomes(images, turned=fewest, by_noise=1)


def found_by_outcomes(images, turned, by_noise):
    """Whether the outcomes are others; images are 1 where they are right, and the repetition breaks all."""
    right = np.arange(images)[:, None, None, None]
    repetition = SimpleNamespace(
        golden=SimpleNamespace(labels=np.ones(images, int)),
        rows=np.arange(images),
        images=np.zeros((images, 1, 1, 1)),
        stored=(right < turned) * 1.0,
        under_noise=lambda _: (right < by_noise) * 1.0,
    )
    return stored_attack._other_outcomes(repetition, lambda items: np.eye(2)[items.reshape(-1).astype(int)]) != ""


@pytest.mark.parametrize("steps", [0, 1001])
def test_export_takes_as_many_steps_as_verify_repeats(steps):
    with pytest.raises(InputError, match="steps must be 1 to 1000"):
        GoldenSettings(steps=steps)
