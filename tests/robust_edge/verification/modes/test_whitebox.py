"""Gradients of a twin that are zero, that vanish in the loss, or both."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from torch import nn

from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.verification.modes.surrogate import surrogate
from robust_edge.verification.modes.whitebox import _twin_differs, compare, whitebox
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.subject import HostSubject
from robust_edge.verification.twins.twin import Differentiable
from robust_edge_runtimes.verdict.images import DrawnImages
from robust_edge_runtimes.verdict.measurement import Budget, Twin

FLAGS = {"zero_gradient", "saturated_gradient"}
SETTINGS = VerifySettings(options={"steps": 2})


def names(measured):
    return {flag.name for flag in measured.flags} & FLAGS


class Masked(nn.Module):
    """A linear classifier with scaled logits, without a gradient where the first pixel lies below `flat_below`."""

    def __init__(self, scale, flat_below):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.scale, self.flat_below = nn.Linear(16, 4).requires_grad_(False), scale, flat_below

    def forward(self, images):
        logits = self.scale * self.layer(images.flatten(1))
        return torch.where(images[:, 0, 0, :1] < self.flat_below, logits.detach(), logits)


@pytest.fixture
def subject_of(Fake, opened, golden):
    """subject_of(network, checkpoint=, eps=) -> an artifact that computes a network, with that network as its twin."""

    def make(network, checkpoint=None, eps=0.05):
        images = np.random.default_rng(1).uniform(size=(60, 1, 4, 4)).astype(np.float32)
        labels = TorchOracle(network).logits(images).argmax(1)
        drawn = DrawnImages(images, images, labels, np.arange(60))
        model = Fake(opened.manifest, TorchOracle(network).logits).open()
        twin = types.SimpleNamespace(found=(Differentiable(network, "its graph"), ()))
        oracle = None if checkpoint is None else TorchOracle(checkpoint)
        return HostSubject(
            opened,
            golden,
            model,
            eps,
            lambda start, stop: drawn,
            60,
            twin=twin,
            network=checkpoint,
            checkpoint=oracle,
            reference=None if oracle is None else oracle.logits,
        )

    return make


@pytest.mark.parametrize(
    ("scale", "flat_below", "expected"),
    [(1, 0, set()), (1, 0.3, {"zero_gradient"}), (1e5, 0, {"saturated_gradient"}), (1e5, 0.3, FLAGS)],
)
def test_zero_gradients_do_not_hide_saturated_ones(scale, flat_below, expected, subject_of):
    subject = subject_of(Masked(scale, flat_below))
    assert names(whitebox(subject, SETTINGS)) == expected


@pytest.mark.parametrize(("own_scale", "expected"), [(1e5, set()), (1, {"saturated_gradient"})])
def test_a_loss_that_saturates_is_inherited_from_the_checkpoint(own_scale, expected, subject_of):
    subject = subject_of(Masked(1e5, 0), Masked(own_scale, 0))
    assert names(whitebox(subject, SETTINGS)) == expected
    assert names(surrogate(subject, SETTINGS)) == set()


def test_the_attack_does_not_stop_where_the_loss_of_the_checkpoint_saturates(subject_of):
    plain, saturated = (surrogate(subject_of(Masked(scale, 0), Masked(scale, 0)), SETTINGS) for scale in (1, 1e5))
    assert saturated.result(Budget()).reference_robust == plain.result(Budget()).reference_robust
    assert plain.result(Budget()).reference_robust < plain.result(Budget()).reference_clean


def test_a_checkpoint_without_gradient_is_no_saturated_one(subject_of):
    subject = subject_of(Masked(1, 0.3), Masked(1, 0.3))
    assert names(surrogate(subject, SETTINGS)) == {"zero_gradient"}


class PartlyConfident(nn.Module):
    """A linear classifier whose logits are 100 times as large for some images."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.layer = nn.Linear(16, 4).requires_grad_(False)

    def forward(self, images):
        logits = self.layer(images.flatten(1))
        return torch.where(images[:, 0, 0, :1] < 0.3, 100 * logits, logits)


def test_a_temperature_that_saturates_some_images_is_no_zero_gradient(subject_of):
    """The lowest temperature breaks most images here, and the softmax of the others is saturated there only."""
    found = whitebox(subject_of(PartlyConfident(), eps=0.01), SETTINGS)
    assert found.twin.temperature < 0.1
    assert not names(found)


@pytest.mark.parametrize(("error", "agreement", "differs"), [(0.04, 0.98, 0), (0.04, 0.9, 1), (0.06, 1.0, 1)])
def test_classes_of_a_twin_in_8_bits_may_differ_on_few_images_and_its_logits_on_none(error, agreement, differs):
    check = _twin_differs(Twin("its graph", error, 0.05, agreement, 1.0), "int8")
    assert check.raised == differs


def test_a_twin_that_is_wrong_where_the_artifact_is_unsure_differs_by_its_logits():
    """Classes are compared on the surest half of the images, logits on all of them."""
    pixels = np.zeros((40, 1, 1, 2), np.float32)
    pixels[:, 0, 0, 0] = np.linspace(0.01, 1, 40)
    twin = nn.Flatten()  # the pixels are the logits
    swapped = types.SimpleNamespace(network=nn.Sequential(twin, Swapped(0.3)), made_from="its graph", exact=False)
    nothing = types.SimpleNamespace(clean=pixels[:0], attacked=pixels[:0])
    subject = types.SimpleNamespace(
        golden=nothing,
        images=types.SimpleNamespace(clean=pixels),
        score=lambda images: images.reshape(len(images), -1),
        precision="int8",
        twin=types.SimpleNamespace(tolerance=0.05),
    )
    found = compare(subject, swapped)
    assert found.argmax_agreement == 1
    assert _twin_differs(found, "int8").raised
    swapped.exact = True
    assert compare(subject, swapped).argmax_agreement == (pixels[:, 0, 0, 0] >= 0.3).mean()


@pytest.mark.parametrize(("exact", "agreement", "differs"), [(False, 0.98, 0), (True, 0.98, 1), (True, 1.0, 0)])
def test_a_twin_of_the_same_integers_agrees_on_all_classes(exact, agreement, differs):
    check = _twin_differs(Twin("the artifact's own integers", 0.0, 2**-23, agreement, 1.0), "int8", exact=exact)
    assert check.raised == differs


@pytest.mark.parametrize(("exact", "moved", "differs"), [(False, 1, 0), (False, 7, 1), (True, 0, 0), (True, 1, 1)])
def test_one_candidate_that_is_not_its_twin_s(exact, moved, differs):
    pixels = np.random.default_rng(0).random((60, 1, 1, 4), np.float32)
    logits = pixels.reshape(60, 4).copy()
    logits[:moved, 2] += 1e-3
    twin = types.SimpleNamespace(found=(Differentiable(nn.Flatten(), "its file", exact=exact), ()), tolerance=2**-23)
    subject = types.SimpleNamespace(precision="int8", reference=True, twin=twin)
    (check,) = HostSubject.compared(subject, "candidates", pixels, logits)
    assert (check.name, check.raised) == ("twin_differs", bool(differs))


class Swapped(nn.Module):
    """Exchanges both logits of images whose first one is smaller than a limit."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def forward(self, logits):
        return torch.where(logits[:, :1] < self.limit, logits.flip(1), logits)
