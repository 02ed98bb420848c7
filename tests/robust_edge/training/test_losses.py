"""Losses written out by hand, and what the adversary of each raises."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from robust_edge.attacks.pgd import Pgd
from robust_edge.config.training import TrainingConfig
from robust_edge.training.losses import attack_batch, batch_loss, check_ranks
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.errors import InputError


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(6, 1, 4, 4, generator=generator)
    noise = torch.rand(6, 1, 4, 4, generator=generator) * 0.2 - 0.1
    return images, (images + noise).clamp(0, 1), torch.tensor([0, 1, 2, 0, 1, 2])


def probabilities(model, images):
    return torch.softmax(model(images).double(), 1)


def smoothed(model, images, labels, share):
    """Mean cross-entropy against 1 - share on the class and share over all of them."""
    targets = torch.full((len(labels), 3), share / 3, dtype=torch.float64)
    targets[torch.arange(len(labels)), labels] += 1 - share
    return -(targets * probabilities(model, images).log()).sum(1).mean()


@pytest.mark.parametrize("share", [0.0, 0.2])
@pytest.mark.parametrize("weight", [0.9, 0.3])
def test_adversarial_loss_by_hand(model, batch, share, weight):
    images, attacked, labels = batch
    settings = TrainingConfig(adversarial_weight=weight, label_smoothing=share)
    found = batch_loss(model, images, attacked, labels, settings)
    expected = weight * smoothed(model, attacked, labels, share) + (1 - weight) * smoothed(model, images, labels, share)
    assert found.total.item() == pytest.approx(expected.item(), rel=1e-5)


class Counter(nn.Module):
    """Counts the images that pass."""

    def __init__(self, model):
        super().__init__()
        self.model, self.images = model, 0

    def forward(self, x):
        self.images += len(x)
        return self.model(x)


def test_no_clean_image_is_computed_where_the_loss_does_not_depend_on_it(model, batch):
    images, attacked, labels = batch
    counter = Counter(model)
    found = batch_loss(counter, images, attacked, labels, TrainingConfig(adversarial_weight=1.0))
    assert counter.images == len(images)
    assert found.total.item() == pytest.approx(smoothed(model, attacked, labels, 0.0).item(), rel=1e-5)
    assert found.figures[[1, 3, 5]].tolist() == [0, 0, 0]


def test_the_mean_over_an_interval_is_the_loss_with_every_clean_term(model, batch):
    images, attacked, labels = batch
    counter = Counter(model)
    every, third = TrainingConfig(), TrainingConfig(clean_interval=3)
    losses = [batch_loss(counter, images, attacked, labels, third, count) for count in range(3)]
    assert counter.images == 4 * len(images)
    expected = batch_loss(model, images, attacked, labels, every).total
    assert sum(loss.total for loss in losses).item() / 3 == pytest.approx(expected.item(), rel=1e-5)
    assert [loss.figures[5].item() for loss in losses] == [1, 0, 0]


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_trades_by_hand(model, batch, share):
    images, attacked, labels = batch
    settings = TrainingConfig(loss="trades", beta=3.0, label_smoothing=share)
    clean, adversarial = probabilities(model, images), probabilities(model, attacked)
    divergence = (clean * (clean / adversarial).log()).sum(1).mean()
    found = batch_loss(model, images, attacked, labels, settings)
    expected = smoothed(model, images, labels, share) + 3 * divergence
    assert found.total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_only_losses_that_are_means_over_images_are_shared_by_ranks():
    for loss, world in (("adversarial", 2), ("trades", 2), ("nuclear", 1)):
        check_ranks(TrainingConfig(loss=loss), world)
    with pytest.raises(InputError, match=r"training\.loss=nuclear .* 2 ranks .*; train with one process, or set"):
        check_ranks(TrainingConfig(loss="nuclear"), 2)


def test_nuclear_by_hand(model, batch):
    images, attacked, labels = batch
    found = batch_loss(model, images, attacked, labels, TrainingConfig(loss="nuclear", beta=3.0))
    singular = torch.linalg.svd((model(attacked) - model(images)).double()).S.sum()
    expected = smoothed(model, images, labels, 0.0) + 3 * singular / len(labels)
    assert found.total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_attack_of_nuclear_raises_the_distance_of_the_logits_more_than_that_of_the_cross_entropy(model, batch):
    images, _, labels = batch

    def distance(settings):
        generator = torch.Generator().manual_seed(0)
        attacked = attack_batch(model, images, labels, Pgd(steps=20), Threat(0.1), generator, settings)
        return torch.linalg.matrix_norm(model(attacked) - model(images), ord="nuc").item()

    assert distance(TrainingConfig(loss="nuclear", beta=100.0)) > 1.05 * distance(TrainingConfig())


@pytest.mark.parametrize("loss", ["adversarial", "trades", "nuclear"])
def test_figures_are_plain_whatever_is_minimised(model, batch, loss):
    images, attacked, labels = batch
    found = batch_loss(model, images, attacked, labels, TrainingConfig(loss=loss, label_smoothing=0.3))
    total, clean, adversarial, clean_hits, hits, computed = found.figures.tolist()
    assert computed == 1
    assert total == found.total.item()
    assert clean == pytest.approx(functional.cross_entropy(model(images), labels).item(), rel=1e-5)
    assert adversarial == pytest.approx(functional.cross_entropy(model(attacked), labels).item(), rel=1e-5)
    assert clean_hits == pytest.approx((model(images).argmax(1) == labels).double().mean().item())
    assert hits == pytest.approx((model(attacked).argmax(1) == labels).double().mean().item())
    assert not found.figures.requires_grad


def test_the_adversary_of_trades_needs_no_labels(model, batch):
    images, _, labels = batch
    attack, threat = Pgd(steps=3), Threat(0.1)

    def crafted(settings, given):
        return attack_batch(model, images, given, attack, threat, torch.Generator().manual_seed(0), settings)

    trades, usual = TrainingConfig(loss="trades"), TrainingConfig()
    assert torch.equal(crafted(trades, labels), crafted(trades, labels.flip(0)))
    assert not torch.equal(crafted(usual, labels), crafted(usual, labels.flip(0)))


def test_the_adversary_of_trades_raises_the_divergence(model, batch):
    images, _, labels = batch

    def divergence(points):
        clean, adversarial = probabilities(model, images), probabilities(model, points)
        return (clean * (clean / adversarial).log()).sum(1)

    generator = torch.Generator().manual_seed(0)
    start = (images + 0.1 * (torch.rand(images.shape, generator=generator) * 2 - 1)).clamp(0, 1)
    attacked = attack_batch(
        model,
        images,
        labels,
        Pgd(steps=8),
        Threat(0.1),
        torch.Generator().manual_seed(0),
        TrainingConfig(loss="trades"),
    )
    assert (divergence(attacked) > divergence(start)).all()
    assert float((attacked - images).abs().max()) <= 0.1 + 1e-6


def test_no_adversary_no_attack(model, batch):
    images, _, labels = batch
    for loss in ("adversarial", "trades"):
        settings = TrainingConfig(loss=loss)
        assert attack_batch(model, images, labels, Pgd(steps=3), Threat(0.0), torch.Generator(), settings) is None
        found = batch_loss(model, images, None, labels, settings)
        assert found.total.item() == pytest.approx(functional.cross_entropy(model(images), labels).item())
