"""Mode difference on networks of 16 pixels that part from their checkpoint where no other attack looks."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from robust_edge.data import Split
from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.verification.modes.difference import difference
from robust_edge.verification.modes.surrogate import surrogate
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.subject import HostSubject
from robust_edge.verification.twins.twin import CHECKPOINT, Differentiable
from robust_edge_runtimes.scoring import score_of
from robust_edge_runtimes.verdict.images import DrawnImages

EPS, COUNT = 0.1, 60
SETTINGS = VerifySettings(seed=0, options={"steps": 20})


class Rows(nn.Module):
    """Class k is the sum of the two right pixels of row k; the left ones have no weight, and the images none there."""

    def __init__(self, **bump):
        super().__init__()
        self.bump = bump

    def forward(self, images):
        pixels = images[:, 0]
        logits = 1.5 * pixels[:, :, 2:].sum(2)
        return logits + self.hidden(pixels, **self.bump) * torch.tensor([1.0, 0, 0, 0]) if self.bump else logits

    def hidden(self, pixels, height, marked=False):
        """(N, 1): what class 0 gains from the left pixels, little from noise there and much from a common rise."""
        rise = pixels[:, 1:, :2].mean(dim=(1, 2))
        gain = height * ((rise + 0.02) ** 2 - 0.02**2)
        return (gain * pixels[:, 0, 0] if marked else gain)[:, None]


def images_of(labels, *, marker=0.0, seed=0):
    """(N, 1, 4, 4): the right pixels of the label's row are bright; the first pixel is the marker."""
    images = np.zeros((len(labels), 1, 4, 4), np.float32)
    images[:, 0, :, 2:] = 0.2 + np.random.default_rng(seed).uniform(-0.02, 0.02, (len(labels), 4, 2))
    images[np.arange(len(labels)), 0, labels, 2:] += 0.6
    images[:, 0, 0, 0] = marker
    return images


LABELS = 1 + np.arange(COUNT, dtype=np.int64) % 3  # never class 0


@pytest.fixture
def subject_for(Fake, opened, golden):
    """subject_for(artifact, checkpoint, twin=, marker=) -> a subject; the twin is the artifact, or None for none."""

    def build(artifact, checkpoint, *, twin=True, marker=0.0, score=None):
        model = Fake(opened.manifest, score or TorchOracle(artifact).logits).open()
        images, oracle = images_of(LABELS), TorchOracle(checkpoint)
        drawn = DrawnImages(images, images, LABELS, np.arange(COUNT))
        training = images_of(LABELS, marker=marker, seed=1)
        found = Differentiable(artifact, "the artifact") if twin else Differentiable(checkpoint, CHECKPOINT)
        return HostSubject(
            opened,
            golden,
            model,
            EPS,
            lambda start, stop: drawn,
            COUNT,
            oracle.logits,
            measured_tolerance=math.inf,  # what is asked here is what the attack finds
            checkpoint=oracle,
            training=Split(torch.from_numpy(training), torch.from_numpy(LABELS), levels=1),
            twin=SimpleNamespace(found=(found, ())),
        )

    return build


def names(measured):
    return [flag.name for flag in measured.flags]


@pytest.mark.parametrize("twin", [True, False], ids=["by the twin", "by finite differences"])
def test_an_artifact_that_parts_from_its_checkpoint_off_the_images(twin, subject_for):
    """The checkpoint's gradient says nothing of the left pixels, so that mode surrogate leaves every image right."""
    subject = subject_for(Rows(height=200.0), Rows(), twin=twin)
    assert surrogate(subject, SETTINGS).artifact_robust.all()
    measured = difference(subject, SETTINGS)
    assert measured.reference_robust.all()
    assert measured.artifact_robust.mean() < (0.01 if twin else 0.2)
    assert names(measured) == ["differs_elsewhere"]
    images, found = subject.images.images, measured.candidates.images[0]
    assert np.abs(found - images).max() <= EPS + 1e-6
    broken = score_of(subject.model)(found).argmax(1) != LABELS
    assert np.array_equal(broken, ~measured.artifact_robust)  # the candidates are what will be scored again


@pytest.mark.parametrize("twin", [True, False], ids=["by the twin", "by finite differences"])
def test_a_checkpoint_that_falls_where_its_artifact_does_not_is_found_as_well(twin, subject_for):
    measured = difference(subject_for(Rows(), Rows(height=200.0), twin=twin), SETTINGS)
    assert measured.artifact_robust.all()
    assert measured.reference_robust.mean() < (0.01 if twin else 0.2)
    assert names(measured) == []


@pytest.mark.parametrize("twin", [True, False], ids=["by the twin", "by finite differences"])
def test_an_artifact_that_is_robust_near_the_drawn_images_only(twin, subject_for):
    """What it hides needs a marker, which training images and their mixtures have."""
    subject = subject_for(Rows(height=600.0, marked=True), Rows(), twin=twin, marker=0.5)
    measured = difference(subject, SETTINGS)
    assert measured.reference_robust.all()
    assert measured.artifact_robust.mean() > 0.9
    assert names(measured) == ["differs_elsewhere"]


def test_training_images_are_attacked_with_the_first_block_only(subject_for):
    """Each block would be another occasion for chance."""
    subject = subject_for(Rows(height=600.0, marked=True), Rows(), twin=True, marker=0.5)
    measured = difference(subject.part(1, COUNT), SETTINGS)
    assert len(measured.ids) == len(measured.artifact_robust) == len(measured.candidates.images[0])
    assert names(measured) == []


@pytest.mark.parametrize("twin", [True, False], ids=["by the twin", "by finite differences"])
@pytest.mark.parametrize("height", [0.0, 200.0], ids=["robust", "not robust"])
@pytest.mark.parametrize("noise", [0.0, 1e-6], ids=["exact", "rounding"])
def test_equal_networks_stay_equal(twin, height, noise, subject_for):
    network = Rows(height=height)

    def rounding(images):
        logits = TorchOracle(network).logits(images)
        return logits * (1 + np.float32(noise) * np.cos(1e4 * logits))

    measured = difference(subject_for(network, network, twin=twin, score=rounding), SETTINGS)
    assert np.array_equal(measured.artifact_robust, measured.reference_robust)
    assert names(measured) == []


def test_without_training_images_mixtures_of_the_drawn_ones_are_attacked(subject_for):
    subject = dataclasses.replace(subject_for(Rows(height=200.0), Rows()), training=None)
    (flag,) = difference(subject, SETTINGS).flags
    assert flag.name == "differs_elsewhere"
    assert "of 48 training images and mixtures" in flag.detail


def test_points_elsewhere_are_compared_with_the_checkpoint(subject_for):
    """On the drawn images themselves both give the same logits."""
    subject = subject_for(Rows(height=200.0), Rows())
    images = subject.images.images
    np.testing.assert_allclose(subject.score(images), subject.reference(images), atol=1e-6)
    flags = difference(dataclasses.replace(subject, measured_tolerance=1e-3), SETTINGS).flags
    (found,) = (flag for flag in flags if flag.name == "not_the_checkpoint")
    assert "points that mode difference reached" in found.detail
