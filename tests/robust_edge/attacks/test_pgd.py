"""PGD against a naive loop over single images, and against the optimum where it is known."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from robust_edge.attacks.input_gradients import only_input_gradients
from robust_edge.attacks.pgd import Pgd, attack_images, craft
from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.errors import InputError

DOUBLE = torch.float64
N, CLASSES = 12, 3


@pytest.fixture
def model():
    """Smooth, so that no gradient is zero by accident and single images follow the batch exactly."""
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(64, CLASSES)
    ).double()
    with torch.no_grad():
        network[1].running_mean.uniform_(-0.2, 0.2)
        network[1].running_var.uniform_(0.5, 1.5)
        network[4].weight.mul_(4)
    return network


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(2)
    values = torch.rand(N, 1, 4, 4, generator=generator, dtype=DOUBLE)
    values[0], values[1] = 0.0, 1.0  # corners of the pixel range
    return values


@pytest.fixture
def labels(model, images):
    """What the model says, except for two images that it gets wrong."""
    with torch.no_grad(), evaluation_mode(model):
        predicted = model(images).argmax(1)
    predicted[3:5] = (predicted[3:5] + 1) % CLASSES
    return predicted


def seeded():
    return torch.Generator().manual_seed(5)


def start_of(images, attack, threat):
    """The random start, written out: uniform noise from the generator, clipped to [0, 1]."""
    if not attack.random_start:
        return images
    noise = torch.rand(images.shape, generator=seeded()) * 2 - 1
    return (images + threat.eps * noise).clamp(0, 1)


def naive_iterates(model, image, label, start, attack, threat):
    """Eq. (3) for one image, in evaluation mode: every iterate, the start first."""
    iterates = [start]
    for _ in range(attack.steps):
        point = iterates[-1].clone().requires_grad_(True)
        functional.cross_entropy(model(point[None]), label[None]).backward()
        step = 2.5 * threat.eps / attack.steps if attack.step_size is None else attack.step_size
        moved = point.detach() + step * torch.sign(point.grad)
        moved = image + (moved - image).clamp(-threat.eps, threat.eps)
        iterates.append(moved.clamp(0, 1))
    return iterates


def all_iterates(model, images, labels, attack, threat):
    starts = start_of(images, attack, threat)
    with evaluation_mode(model):
        return [naive_iterates(model, *row, attack, threat) for row in zip(images, labels, starts, strict=True)]


ATTACKS = [
    (Pgd(steps=1), Threat(0.1)),
    (Pgd(steps=5), Threat(0.1)),
    (Pgd(steps=4, step_size=0.05), Threat(0.3)),
    (Pgd(steps=3, step_size=0.5), Threat(0.05)),
    (Pgd(steps=3, random_start=False), Threat(0.2)),
]


@pytest.mark.parametrize(("attack", "threat"), ATTACKS)
def test_craft_is_the_last_iterate_of_the_naive_loop(model, images, labels, attack, threat):
    crafted = craft(model, images, labels, attack, threat, seeded())
    expected = torch.stack([iterates[-1] for iterates in all_iterates(model, images, labels, attack, threat)])
    assert torch.allclose(crafted, expected, atol=1e-12)
    assert not crafted.requires_grad


@pytest.mark.parametrize(("attack", "threat"), ATTACKS)
def test_attack_images_counts_every_iterate_and_stops_at_the_first_that_fools(model, images, labels, attack, threat):
    outcome = attack_images(model, images, labels, attack, threat, seeded())
    naive = all_iterates(model, images, labels, attack, threat)
    with torch.no_grad(), evaluation_mode(model):
        for i, iterates in enumerate(naive):
            clean = bool(model(images[i : i + 1]).argmax() == labels[i])
            right = [bool(model(point[None]).argmax() == labels[i]) for point in iterates]
            assert bool(outcome.clean[i]) == clean
            assert bool(outcome.robust[i]) == (clean and all(right))
            shown = images[i] if not clean else iterates[right.index(False)] if False in right else iterates[-1]
            assert torch.allclose(outcome.images[i], shown, atol=1e-12)
    assert outcome.clean.tolist() == [i not in (3, 4) for i in range(N)]


def test_the_cases_above_hold_robust_and_broken_images(model, images, labels):
    robust = torch.stack([attack_images(model, images, labels, *case, seeded()).robust for case in ATTACKS])
    assert robust.any()
    assert not robust[:, [0, 1, 2, *range(5, N)]].all()


@pytest.mark.parametrize(("attack", "threat"), ATTACKS)
@pytest.mark.parametrize("batch", [torch.float32, DOUBLE])
def test_every_image_stays_in_the_ball_and_in_the_pixel_range(model, images, labels, attack, threat, batch):
    model, images = model.to(batch), images.to(batch)
    for attacked in (
        craft(model, images, labels, attack, threat, seeded()),
        attack_images(model, images, labels, attack, threat, seeded()).images,
    ):
        assert attacked.dtype == batch
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        assert (attacked - images).abs().max() <= threat.eps * (1 + 1e-6)


def test_a_linear_model_is_attacked_optimally():
    """For two classes the loss rises along sign(w_other - w_true): one corner of the ball is the worst case."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double()
    images, labels = torch.rand(20, 1, 4, 4, dtype=DOUBLE), torch.arange(20) % 2
    attack, threat = Pgd(steps=10), Threat(0.15)
    crafted = craft(model, images, labels, attack, threat, seeded())
    weight = model[1].weight.detach().view(2, 1, 4, 4)
    worst = (images + threat.eps * torch.sign(weight[1 - labels] - weight[labels])).clamp(0, 1)
    assert torch.allclose(crafted, worst, atol=1e-12)
    with torch.no_grad():
        optimum = model(worst).argmax(1) == labels
        clean = model(images).argmax(1) == labels
    assert torch.equal(attack_images(model, images, labels, attack, threat, seeded()).robust, optimum & clean)


def test_radius_zero_gives_the_images_back(model, images, labels):
    outcome = attack_images(model, images, labels, Pgd(steps=5), Threat(0.0), seeded())
    assert torch.equal(outcome.images, images)
    assert torch.equal(outcome.robust, outcome.clean)


def test_default_step_is_two_and_a_half_radii_over_the_steps():
    assert Pgd(steps=5).alpha(Threat(0.08)) == pytest.approx(0.04)
    assert Pgd(steps=5, step_size=0.01).alpha(Threat(0.08)) == 0.01


@pytest.mark.parametrize("name", ["steps", "restarts"])
def test_no_step_and_no_start_is_no_attack(name):
    with pytest.raises(InputError, match=f"{name} must be at least 1"):
        Pgd(**{name: 0})


def test_the_same_generator_gives_the_same_attack_and_another_one_another(model, images, labels):
    attack, threat = Pgd(steps=2), Threat(0.1)
    first, again = (craft(model, images, labels, attack, threat, seeded()) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, craft(model, images, labels, attack, threat, torch.Generator().manual_seed(6)))


def test_arguments_are_left_alone(model, images, labels):
    before = images.clone(), labels.clone()
    craft(model, images, labels, *ATTACKS[1], seeded())
    attack_images(model, images, labels, *ATTACKS[1], seeded())
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])
    assert not images.requires_grad


@pytest.mark.parametrize("attacker", [craft, attack_images])
def test_parameter_gradients_buffers_and_modes_are_as_before(model, images, labels, attacker):
    model[0].bias.requires_grad_(False)
    functional.cross_entropy(model(images), labels).backward()
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.train()
    attacker(model, images, labels, *ATTACKS[1], seeded())
    assert model.training
    assert model[1].training
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name != "0.bias")
        expected = gradients[name]
        assert parameter.grad is None if expected is None else torch.equal(parameter.grad, expected)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, buffers[name]), name


def test_parameters_take_no_part_in_the_attack(model, images, labels):
    seen = []
    model.register_forward_hook(lambda *_: seen.append([p.requires_grad for p in model.parameters()]))
    craft(model, images, labels, Pgd(steps=3), Threat(0.1), seeded())
    assert len(seen) == 3  # one pass per step and none to spare
    assert not any(any(row) for row in seen)


@pytest.mark.parametrize("attacker", [craft, attack_images])
def test_an_exception_restores_mode_and_gradients(model, images, labels, attacker):
    model.register_forward_hook(lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        attacker(model, images, labels, *ATTACKS[0], seeded())
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_contexts_restore_what_was_there():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).eval()
    model[0].weight.requires_grad_(False)
    model[1].train()
    with only_input_gradients(model), evaluation_mode(model):
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert not any(module.training for module in model.modules())
    assert [parameter.requires_grad for parameter in model.parameters()] == [False, True, True, True]
    assert [module.training for module in model.modules()] == [False, False, True]
