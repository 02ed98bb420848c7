"""Gradients of a twin that are zero, that vanish in the loss, or both."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from torch import nn

from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.verification.modes.whitebox import whitebox
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.subject import HostSubject
from robust_edge.verification.twins.twin import Differentiable
from robust_edge_runtimes.verdict.images import DrawnImages

FLAGS = {"zero_gradient", "saturated_gradient"}


class Masked(nn.Module):
    """A linear classifier with scaled logits, without a gradient where the first pixel lies below `flat_below`."""

    def __init__(self, scale, flat_below):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.scale, self.flat_below = nn.Linear(16, 4).requires_grad_(False), scale, flat_below

    def forward(self, images):
        logits = self.scale * self.layer(images.flatten(1))
        return torch.where(images[:, 0, 0, :1] < self.flat_below, logits.detach(), logits)


@pytest.mark.parametrize(
    ("scale", "flat_below", "expected"),
    [(1, 0, set()), (1, 0.3, {"zero_gradient"}), (1e5, 0, {"saturated_gradient"}), (1e5, 0.3, FLAGS)],
)
def test_zero_gradients_do_not_hide_saturated_ones(scale, flat_below, expected, Fake, opened, golden):
    network = Masked(scale, flat_below)
    images = np.random.default_rng(1).uniform(size=(60, 1, 4, 4)).astype(np.float32)
    drawn = DrawnImages(images, images, golden.labels, np.arange(60))
    model = Fake(opened.manifest, TorchOracle(network).logits).open()
    twin = types.SimpleNamespace(found=(Differentiable(network, "its graph"), ()))
    subject = HostSubject(opened, golden, model, 0.01, lambda start, stop: drawn, 60, twin=twin)
    flags = whitebox(subject, VerifySettings(options={"steps": 2})).flags
    assert {flag.name for flag in flags} & FLAGS == expected


class PartlyConfident(nn.Module):
    """A linear classifier whose logits are 100 times as large for some images."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.layer = nn.Linear(16, 4).requires_grad_(False)

    def forward(self, images):
        logits = self.layer(images.flatten(1))
        return torch.where(images[:, 0, 0, :1] < 0.3, 100 * logits, logits)


def test_a_temperature_that_saturates_some_images_is_no_zero_gradient(Fake, opened, golden):
    """The lowest temperature breaks most images here, and the softmax of the others is saturated there only."""
    network = PartlyConfident()
    images = np.random.default_rng(1).uniform(size=(60, 1, 4, 4)).astype(np.float32)
    labels = TorchOracle(network).logits(images).argmax(axis=1)
    drawn = DrawnImages(images, images, labels, np.arange(60))
    model = Fake(opened.manifest, TorchOracle(network).logits).open()
    twin = types.SimpleNamespace(found=(Differentiable(network, "its graph"), ()))
    subject = HostSubject(opened, golden, model, 0.01, lambda start, stop: drawn, 60, twin=twin)
    found = whitebox(subject, VerifySettings(options={"steps": 2}))
    assert found.twin.temperature < 0.1
    assert not {flag.name for flag in found.flags} & FLAGS
