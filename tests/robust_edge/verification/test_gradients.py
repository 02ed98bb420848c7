"""Honest gradients: twins whose gradient is, is not, or is only at some scales the slope of the artifact."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch
from torch import nn

from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.verification import gradients
from robust_edge.verification.eight_bits import score_in_8_bits
from robust_edge.verification.gradients import SCALES, gradient_checks
from robust_edge.verification.subject import HostSubject
from robust_edge.verification.twins.lazy import LazyTwin
from robust_edge_runtimes.verdict.flags import raised
from robust_edge_runtimes.verdict.images import DrawnImages

EPS = 0.05


class Smooth(nn.Module):
    """A network with curvature, whose slope hardly changes inside a ball."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4))

    def forward(self, images):
        return self.layers(images)


class Rippled(nn.Module):
    """The smooth network and a ripple, which differences over a whole number of its periods do not show."""

    def __init__(self, period):
        super().__init__()
        self.smooth, self.period = Smooth(), period

    def forward(self, images):
        ripple = torch.sin(2 * torch.pi / self.period * images).sum(dim=(1, 2, 3))
        return self.smooth(images) + ripple[:, None] * torch.tensor([0.15, -0.05, 0.05, -0.15])


class WithGradientOf(nn.Module):
    """The logits of one network, the gradient of another."""

    def __init__(self, shown, followed):
        super().__init__()
        self.shown, self.followed = shown, followed

    def forward(self, images):
        followed = self.followed(images)
        return followed - followed.detach() + self.shown(images).detach()


class Negative(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return -self.network(images)


class Constant(nn.Module):
    """The same logits for every image."""

    def forward(self, images):
        return torch.tensor([[1.0, 2.0, 3.0, 4.0]]) + 0 * images.sum(dim=(1, 2, 3))[:, None]


class Unrecorded(nn.Module):
    """A network whose logits lead to no gradient."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network(images).detach() + 0 * images.sum()


class OtherWhenRecorded(nn.Module):
    """A network, and another one where gradients are recorded."""

    def __init__(self, network, change):
        super().__init__()
        self.network, self.change = network, change

    def forward(self, images):
        logits = self.network(images)
        return logits + self.change if images.requires_grad else logits


@pytest.fixture
def checked(Fake, opened, golden):
    """checked(artifact, twin, precision=, checkpoint=, network=) -> details of the flags that a twin's gradient raises.

    The artifact is a torch network, or a function of images.
    """

    def check(artifact, twin, *, precision="fp32", checkpoint=None, network=None, seed=0, untested=False):
        score = TorchOracle(artifact).logits if isinstance(artifact, nn.Module) else artifact
        model = Fake(opened.manifest, score).open()
        random = np.random.default_rng(1)
        images = random.uniform(0.3, 0.7, (40, 1, 4, 4)).astype(np.float32)
        drawn = DrawnImages(images, images, golden.labels[:40], np.arange(40))
        manifest = dataclasses.replace(
            opened.manifest, artifact=dataclasses.replace(opened.manifest.artifact, precision=precision)
        )
        bundle = dataclasses.replace(opened, manifest=manifest)
        oracle = None if checkpoint is None else TorchOracle(checkpoint)
        subject = HostSubject(
            bundle,
            golden,
            model,
            EPS,
            lambda start, stop: drawn,
            40,
            twin=LazyTwin(bundle, golden, model),
            checkpoint=oracle,
            network=network,
            reference=None if network is None else TorchOracle(network).logits,
        )
        flags = raised(gradient_checks(subject, twin, seed))
        assert {flag.name for flag in flags} <= ({"gradient_untested"} if untested else {"twin_gradient_differs"})
        return [flag.detail for flag in flags]

    return check


def cosine_and_scale(details):
    (detail,) = details
    found = re.search(r"at steps of (\S+) eps .* cosine of (\S+), at least", detail)
    return float(found[2]), float(found[1])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("with_run", [False, True])
def test_an_honest_twin_raises_nothing(seed, with_run, checked):
    network = Smooth()
    assert checked(network, network, checkpoint=network if with_run else None, seed=seed) == []


@pytest.mark.parametrize(("precision", "grid"), [("fp16", 2e-4), ("int8", 5e-3)])
def test_nor_does_one_of_an_artifact_that_rounds(precision, grid, checked):
    """Rounded logits are steps, which small moves of an image do not leave."""
    network = Smooth()

    def rounded(images):
        return (np.round(TorchOracle(network).logits(images) / grid) * grid).astype(np.float32)

    assert checked(rounded, network, precision=precision) == []


class Narrow(nn.Module):
    """A deep network of few channels, which passes the rounding of its activations on to the logits."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        layers = [nn.Conv2d(1, 3, 3, 1, 1), *(nn.Conv2d(3, 3, 3, 1, 1) for _ in range(15))]
        parts = [part for layer in layers for part in (layer, nn.ReLU())]
        self.layers = nn.Sequential(*parts, nn.Flatten(), nn.Linear(48, 4))
        for layer in layers:
            nn.init.normal_(layer.weight, std=(2 / 27) ** 0.5)
            nn.init.constant_(layer.bias, 1)

    def forward(self, images):
        return self.layers(images)


def test_rounding_of_8_bits_hides_the_changes_of_small_steps(checked):
    network = Narrow()
    rounded = score_in_8_bits(network)
    assert checked(rounded, network, precision="int8") != []
    assert checked(rounded, network, precision="int8", network=network) == []
    assert checked(rounded, network, network=network) != []  # in fp32 it is none of the artifact's own
    opposite = WithGradientOf(network, Negative(network))
    assert checked(rounded, opposite, precision="int8", network=network) != []


class Overflowing(nn.Module):
    """A network with one large constant activation, beside which the rounding of 8 bits hides all others."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        large = torch.full((len(images), 1, *images.shape[2:]), 1e4)
        return self.network(torch.cat([images, large], 1)[:, :1])


def test_a_checkpoint_that_8_bits_ruin_hides_no_gradient_of_an_artifact_that_they_do_not(checked):
    network = Overflowing(Smooth())
    assert checked(network, network, precision="int8", network=network) == []
    for followed in (Negative(network), Constant()):
        twin = WithGradientOf(network, followed)
        assert checked(network, twin, precision="int8", network=network) != []


class Shifted(nn.Module):
    """A network with a number added to all logits of an image, which changes no class."""

    def __init__(self, network, shift):
        super().__init__()
        self.network, self.shift = network, shift

    def forward(self, images):
        return self.network(images) + self.shift


class SureOfOne(nn.Module):
    """A network whose logits are a thousand times as large for one bright image."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        brightness = images.mean(dim=(1, 2, 3), keepdim=True).flatten(1)
        return torch.where(brightness == brightness.max(), 1000.0, 1.0) * self.network(images)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("change", [lambda network: Shifted(network, 1e4), SureOfOne])
def test_large_logits_do_not_hide_a_wrong_gradient(change, precision, checked):
    network = Smooth()
    twin = WithGradientOf(change(network), Negative(network))
    assert checked(change(network), twin, precision=precision, network=network) != []


def test_a_twin_whose_gradient_leads_the_other_way(checked):
    network = Smooth()
    cosine, _ = cosine_and_scale(checked(network, WithGradientOf(network, Negative(network))))
    assert cosine < -0.9


def test_a_twin_with_the_gradient_of_another_network(checked):
    network, other = Smooth(), Smooth()
    torch.manual_seed(5)
    for layer in (other.layers[1], other.layers[3]):
        nn.init.normal_(layer.weight, std=0.3)
    cosine, _ = cosine_and_scale(checked(network, WithGradientOf(network, other)))
    assert -0.5 < cosine < 0.5


@pytest.mark.parametrize("twin", [Unrecorded(Smooth()), WithGradientOf(Smooth(), Constant())])
def test_a_twin_that_is_flat_where_the_artifact_is_not(twin, checked):
    assert cosine_and_scale(checked(Smooth(), twin))[0] == 0


def test_a_gradient_that_is_no_number_is_none(checked):
    class Overflown(nn.Module):
        def forward(self, images):
            return Constant()(images) + (images - images).sqrt().sum()

    network = Smooth()
    assert cosine_and_scale(checked(network, WithGradientOf(network, Overflown())))[0] == 0


def test_a_flat_twin_of_a_flat_artifact_is_honest(checked):
    network = Constant()
    assert checked(network, network) == []


@pytest.mark.parametrize(
    ("period", "twin_has_it", "contradicted"),
    [(EPS / 2, False, {1 / 16}), (2 * EPS, False, {1 / 4, 1 / 16}), (2 * EPS, True, {1}), (EPS / 2, True, {1, 1 / 4})],
)
def test_a_ripple_shows_at_the_scales_that_it_does_not_divide(period, twin_has_it, contradicted, checked, monkeypatch):
    """A twin without it, or with it: its gradient misleads an attack whose steps are whole periods."""
    network = Rippled(period)
    twin = network if twin_has_it else network.smooth
    assert cosine_and_scale(checked(network, twin))[1] in contradicted
    for scale in SCALES:
        monkeypatch.setattr(gradients, "SCALES", (scale,))
        assert bool(checked(network, twin)) is (scale in contradicted), scale


@pytest.mark.parametrize(("change", "found"), [(1e-4, False), (0.1, True)])
def test_a_twin_that_asks_whether_gradients_are_recorded(change, found, checked):
    details = checked(Smooth(), OtherWhenRecorded(Smooth(), change))
    assert len(details) == found
    assert all("with gradients recorded and without" in detail for detail in details)


@pytest.mark.parametrize("period", [EPS / 2, EPS / 40])
def test_a_network_that_bends_as_its_checkpoint_does_is_honest(period, checked):
    """Barely trained networks bend so strongly that no gradient predicts the changes over a step."""
    rough = Rippled(period)
    assert checked(rough, rough) != []
    assert checked(rough, rough, network=rough) == []
    assert checked(rough, rough, network=rough.smooth) != []


@pytest.mark.parametrize("period", [EPS / 2, EPS / 40])
@pytest.mark.parametrize("followed", [Constant(), Negative(Smooth())])
def test_a_rough_checkpoint_hides_no_twin_with_another_gradient(period, followed, checked):
    rough = Rippled(period)
    assert checked(rough, WithGradientOf(rough, followed), network=rough) != []


def test_nor_an_artifact_that_rounds_to_many_flat_steps(checked):
    rough = Rippled(EPS / 2)

    class Steps(nn.Module):
        def forward(self, images):
            return rough(torch.round(images / (EPS / 8)) * (EPS / 8))

    assert checked(Steps(), Steps(), network=rough) != []


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_checkpoint_whose_gradient_predicts_nothing_at_any_step_tests_no_twin(precision, checked):
    """A twin with the gradient of another network would do as well, so it must not pass in silence."""
    rough = Rippled(EPS / 40)
    for twin in (rough, WithGradientOf(rough, Constant())):
        (detail,) = checked(rough, twin, network=rough, precision=precision, untested=True)
        assert "at every step from 0.0625 to 1 eps" in detail
