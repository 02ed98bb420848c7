"""PGD against an independent library, CW against a naive loop, Square and ℓ2 steps against what is known exactly."""

import pytest
import torch
from torch import nn

from robust_edge.attacks.attack import Batch
from robust_edge.attacks.ball import lengths
from robust_edge.attacks.carlini_wagner import CarliniWagner
from robust_edge.attacks.fgsm import Fgsm
from robust_edge.attacks.logits import margins
from robust_edge.attacks.pgd import Pgd, last_iterate
from robust_edge.attacks.square import Square
from robust_edge.run.images import evaluation_images
from robust_edge_runtimes.attacks.threat import L2, Threat


def right(model, images, labels):
    with torch.no_grad():
        return model(images).argmax(1) == labels


@pytest.fixture
def linear():
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()


@pytest.mark.parametrize(("norm", "eps", "name"), [("linf", 0.1, "LinfPGD"), ("l2", 0.6, "L2PGD")])
def test_robust_accuracy_is_foolboxs_within_a_point(judged_run, norm, eps, name):
    """From the image itself, where both are deterministic; a random start alone moves a figure by about a point."""
    foolbox = pytest.importorskip("foolbox", reason="foolbox is not installed")
    model, split = judged_run.load_model(), evaluation_images(judged_run, limit=200)
    images, labels, steps = split.floats(slice(None)), split.labels, 20
    step = 2.5 * eps / steps
    pgd, threat = Pgd(steps=steps, restarts=1, step_size=step, random_start=False), Threat(eps, norm)
    last = last_iterate(model, images, labels, pgd, threat, images)
    best = pgd.perturb(model, Batch(images, labels, range(len(labels)), 0), threat)
    attack = getattr(foolbox.attacks, name)(abs_stepsize=step, steps=steps, random_start=False)
    _, seen, fooled = attack(foolbox.PyTorchModel(model, bounds=(0, 1)), images, labels, epsilons=eps)
    clean = right(model, images, labels)
    theirs, ours, every = (
        100 * float((clean & held).float().mean())
        for held in (~fooled, right(model, last, labels), right(model, best, labels))
    )
    assert 20 < theirs < 80, "the radius shows nothing if all hold or all fall"
    assert abs(ours - theirs) <= 1
    assert theirs - 2 <= every <= ours, "every iterate counts here, only the last one there"
    assert float((seen - last).abs().mean()) < 1e-3 * eps, "the very same path"


def test_carlini_wagner_is_the_margin_followed_step_by_step(judged):
    model, split = judged
    image, label = split.floats(slice(0, 1)), split.labels[:1]
    point = image.clone()
    for _ in range(5):
        leaf = point.clone().requires_grad_(True)
        logits = model(leaf)[0]
        others = torch.cat([logits[: label[0]], logits[label[0] + 1 :]])
        (others.max() - logits[label[0]]).clamp(max=50).backward()
        moved = point + 0.02 * torch.sign(leaf.grad)
        point = image + (moved - image).clamp(-0.05, 0.05)
        point = point.clamp(0, 1)
    attack = CarliniWagner(steps=5, step_size=0.02, random_start=False).for_transfer()
    found = attack.perturb(model, Batch(image, label, [0], 0), Threat(0.05))
    assert torch.allclose(found, point, atol=1e-6)


def test_the_margin_is_a_lead_and_its_loss_ends_at_the_confidence():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 9.0]])
    labels = torch.tensor([0, 1])
    assert margins(logits, labels).tolist() == [1.0, -4.0]
    assert CarliniWagner().loss(logits, labels).item() == 3.0
    assert CarliniWagner(confidence=2).loss(logits, labels).item() == 1.0


def test_fgsm_on_a_linear_model_is_the_worst_corner(linear):
    images, labels = torch.rand(20, 1, 4, 4, dtype=torch.float64), torch.arange(20) % 2
    crafted = Fgsm().for_transfer().perturb(linear, Batch(images, labels, range(20), 0), Threat(0.15))
    weight = linear[1].weight.detach().view(2, 1, 4, 4)
    worst = (images + 0.15 * torch.sign(weight[1 - labels] - weight[labels])).clamp(0, 1)
    assert torch.allclose(crafted, worst, atol=1e-12)


def test_l2_steps_on_a_linear_model_end_at_the_far_point_of_the_sphere(linear):
    images, labels = torch.full((8, 1, 4, 4), 0.5, dtype=torch.float64), torch.arange(8) % 2
    crafted = last_iterate(linear, images, labels, Pgd(steps=20), Threat(0.3, L2), images)
    weight = linear[1].weight.detach().view(2, 1, 4, 4)
    direction = weight[1 - labels] - weight[labels]
    worst = images + 0.3 * direction / lengths(direction, L2).view(-1, 1, 1, 1)
    assert torch.allclose(crafted, worst, atol=1e-9)


def test_restarts_find_what_one_start_misses():
    """The loss has no slope but where the start may fall: more starts, more hits; broken images stay broken."""

    class Needle(nn.Module):
        def forward(self, x):
            hit = (x.flatten(1)[:, 0] > 0.58).to(x) + 0 * x.flatten(1)[:, 0]
            return torch.stack([0.5 - hit, hit - 0.5], 1)

    images, labels = torch.full((60, 1, 1, 1), 0.5), torch.zeros(60, dtype=torch.int64)
    held = []
    for restarts in (1, 4, 16):
        attack = Pgd(steps=1, step_size=1e-9, restarts=restarts)
        found = attack.perturb(Needle(), Batch(images, labels, range(60), 0), Threat(0.1))
        held.append(right(Needle(), found, labels))
    assert held[0].sum() > held[1].sum() > held[2].sum()
    assert not (held[2] & ~held[1]).any()
    assert not (held[1] & ~held[0]).any()


def test_square_breaks_without_gradients_and_stays_in_the_ball(judged):
    model, split = judged
    images, labels = split.floats(slice(None)), split.labels

    class Opaque(nn.Module):
        def forward(self, x):
            return model(x.detach()).round(decimals=2)

    batch = Batch(images, labels, range(len(labels)))
    found = Square(queries=150).perturb(Opaque(), batch, Threat(0.15))
    assert (found - images).abs().max() <= 0.15 + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    before, after = right(model, images, labels).sum(), right(model, found, labels).sum()
    noise = (images + 0.15 * (torch.randint(0, 2, images.shape) * 2 - 1)).clamp(0, 1)
    assert after < right(model, noise, labels).sum() <= before
