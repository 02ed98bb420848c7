import copy
import dataclasses

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


def test_more_steps_than_the_modes_take_are_all_repeated_on_fewer_images(stored, network):
    found = compared(stored(20), network, 400)
    assert "400 steps: made again from seed 0 on 16 images" in found
    assert compared(stored(50), network, 50) == ""


def test_images_of_another_attack(stored, network):
    """Another seed; and a strong attack on the first images alone."""
    assert compared(stored(20, seed=1), network, 20) != ""
    honest, weak = stored(20), stored(1)
    attacked = np.concatenate([honest.attacked[:40], weak.attacked[40:]])
    assert compared(dataclasses.replace(honest, attacked=attacked), network, 20) != ""
    assert compared(dataclasses.replace(honest, attacked=honest.clean), network, 20) != ""


def test_an_honest_attack_is_made_again(stored, network, monkeypatch):
    golden, threads = stored(5), torch.get_num_threads()
    monkeypatch.setattr(stored_attack, "SAME_IMAGES", 0.0)  # on one machine every pixel is the same
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
    monkeypatch.setattr(stored_attack, "SAME_IMAGES", stored_attack.SAME_IMAGES / 4)
    for other in (InFloat64(network), noisy):
        assert compared(stored(taken), other, taken) == ""


def exported_with(rounding, network, split, steps=20):
    """What an export stores whose gradients have this relative error."""
    return make_golden(RoundedGradients(network, rounding).eval(), split, Pgd(steps=steps, restarts=1), THREAT, 0)


def test_rounding_that_moves_many_pixels_of_this_network_is_allowed(stored, sparse_run, network, monkeypatch):
    """As in deep networks, where a sign that turns changes all later steps; here by larger errors of the gradients."""
    golden = exported_with(3e-3, network, evaluation_images(sparse_run))
    assert "rounding explains 2%" in compared(golden, network, 20)
    monkeypatch.setattr(stored_attack, "ROUNDING", 3e-3)
    assert compared(golden, network, 20) == ""
    assert "made again from seed 0" in compared(stored(10), network, 20)
    assert "made again from seed 0" in compared(stored(20, seed=1), network, 20)


def test_where_rounding_moves_most_pixels_the_strength_is_compared(stored, sparse_run, network, monkeypatch):
    monkeypatch.setattr(stored_attack, "ROUNDING", 0.3)
    golden = exported_with(0.3, network, evaluation_images(sparse_run))
    assert compared(golden, network, 20) == ""
    unmoved = dataclasses.replace(golden, attacked=golden.clean)
    assert "made again it" in compared(unmoved, network, 20)


@pytest.mark.parametrize("steps", [0, 1001])
def test_export_takes_as_many_steps_as_verify_repeats(steps):
    with pytest.raises(InputError, match="steps must be 1 to 1000"):
        GoldenSettings(steps=steps)
