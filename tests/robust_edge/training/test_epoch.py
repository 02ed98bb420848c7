"""One epoch, taken apart: the loss by hand, the randomness, the masks, the running statistics."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional

from robust_edge.attacks.pgd import Pgd, craft
from robust_edge.config.settings import resolve
from robust_edge.data import Split
from robust_edge.data.augment import augment
from robust_edge.models import Normalized
from robust_edge.pruning.prunable import budget_of, prunable_parameters
from robust_edge.training.epoch import EpochPart, train_epoch
from robust_edge.training.learner import Learner
from robust_edge.training.schedules import learning_rate, schedules
from robust_edge_exporters.weight_uses import sparsity_of
from robust_edge_runtimes.attacks.threat import Threat
from tests.traced import traced


def config_of(**flags):
    return resolve(
        flags={
            "training.epochs": 2,
            "training.batch_size": 8,
            "training.momentum": 0.0,
            "training.weight_decay": 0.0,
            "attack.steps": 2,
            "admm.masked_fraction": 0.5,
            **{name.replace("__", "."): value for name, value in flags.items()},
        }
    )


def split_of(count=8, side=4, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, side, side), generator=generator).to(torch.uint8)
    return Split(images, torch.randint(0, classes, (count,), generator=generator))


def linear(seed=0):
    torch.manual_seed(seed)
    return Normalized(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), [0.5], [0.25])


def with_batchnorm(seed=0, dropout=0.0):
    """Ends in planes of one pixel, where batch-norm needs two images."""
    torch.manual_seed(seed)
    return Normalized(
        nn.Sequential(
            nn.Conv2d(1, 6, 4), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(6, 3)
        ),
        [0.5],
        [0.25],
    )


def learner_of(model, config, plan):
    return Learner(traced(model, (1, 4, 4)), config, plan, config.pruning.build(model, (1, 4, 4)))


def train(model, split, config, epochs=1):
    plan = schedules(config)
    learner = learner_of(model, config, plan)
    return learner, [train_epoch(learner, split, plan, epoch) for epoch in range(epochs)]


def expected_batch(split, config, epoch=0):
    """What the seed and the epoch alone decide for a single batch: the order, and the attack's start."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    torch.randint(2**62, (), generator=generator)
    order = torch.randperm(len(split), generator=generator)
    return order, augment(split.floats(order), config.data.augment, generator), generator


@pytest.mark.parametrize("weight", [0.9, 0.25])
def test_loss_gradient_and_step_by_hand(weight):
    split = split_of()
    config = config_of(training__adversarial_weight=weight, pruning__keep=1.0, training__lr=0.1, attack__eps=0.1)
    model, reference = linear(), linear()
    order, images, generator = expected_batch(split, config)
    labels = split.labels[order]
    attacked = craft(reference, images, labels, Pgd(steps=2), Threat(0.1), generator)
    clean_loss = functional.cross_entropy(reference(images), labels)
    adversarial_loss = functional.cross_entropy(reference(attacked), labels)
    loss = weight * adversarial_loss + (1 - weight) * clean_loss
    loss.backward()
    _, (result,) = train(model, split, config)
    assert result.loss == pytest.approx(loss.item(), rel=1e-5)
    assert result.clean_loss == pytest.approx(clean_loss.item(), rel=1e-5)
    assert result.adversarial_loss == pytest.approx(adversarial_loss.item(), rel=1e-5)
    assert result.adversarial_loss > result.clean_loss
    hits = (reference(images).argmax(1) == labels).double().mean()
    assert result.clean_accuracy == pytest.approx(float(hits))
    for trained, before in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(trained, before - 0.1 * before.grad, atol=1e-6)


def test_a_benign_run_sees_no_attack():
    split, config = split_of(), config_of(attack__eps=0.0, pruning__keep=1.0)
    reference = linear()
    order, images, _ = expected_batch(split, config)
    _, (result,) = train(linear(), split, config)
    assert result.loss == pytest.approx(functional.cross_entropy(reference(images), split.labels[order]).item())
    assert result.loss == result.clean_loss == result.adversarial_loss


def test_the_clean_term_comes_at_its_interval_across_epochs():
    """Three batches an epoch: of the run's twelve, the first, the sixth and the eleventh."""
    flags = {"adversarial_weight": 0.5, "clean_interval": 5, "batch_size": 2, "epochs": 4}
    config = config_of(attack__eps=0.1, **{f"training__{name}": value for name, value in flags.items()})
    _, results = train(linear(), split_of(6), config, epochs=4)
    assert [result.clean_loss is not None for result in results] == [True, True, False, True]


def test_averages_are_over_images_and_not_over_batches():
    """With a vanishing learning rate the network stays, so that the mean loss does not depend on the batches."""
    split = split_of(20)
    flags = {"attack__eps": 0.0, "pruning__keep": 1.0, "training__lr": 1e-12}
    _, (small,) = train(linear(), split, config_of(**flags, training__batch_size=8))
    _, (large,) = train(linear(), split, config_of(**flags, training__batch_size=20))
    assert small.loss == pytest.approx(large.loss, rel=1e-5)
    assert small.clean_accuracy == pytest.approx(large.clean_accuracy)


def test_the_admm_penalty_joins_the_gradient():
    split, config = split_of(), config_of(pruning__keep=0.25, training__lr=0.1, admm__rho=0.5, attack__eps=0.0)
    model, reference = linear(), linear()
    order, images, _ = expected_batch(split, config)
    functional.cross_entropy(reference(images), split.labels[order]).backward()
    weight = reference.network[1].weight
    top = weight.abs().flatten().topk(12).indices
    target = torch.zeros(48).index_copy(0, top, weight.detach().flatten()[top]).view(3, 16)
    gradient = weight.grad + 0.5 * (weight.detach() - target)
    train(model, split, config)
    assert torch.allclose(model.network[1].weight, weight - 0.1 * gradient, atol=1e-6)


@pytest.mark.parametrize("interval", [1, 2, 3, 5])
def test_theta_prime_and_u_are_updated_every_interval_steps_across_epochs(interval):
    split = split_of(32)
    config = config_of(
        admm__interval=interval, pruning__keep=0.25, training__epochs=4, admm__rho=0.001, admm__rho_growth=2.0
    )
    learner, results = train(linear(), split, config, epochs=2)  # 4 batches each, no masked epoch yet
    assert results[0].rho == pytest.approx(0.001 * 2 ** (4 // interval))
    assert results[1].rho == pytest.approx(0.001 * 2 ** (8 // interval))
    assert learner.admm is not None


def test_randomness_depends_on_seed_and_epoch_only():
    split, config = split_of(24), config_of(data__augment=["flip", "rotate", "shift"])
    torch.manual_seed(1)
    first, _ = train(with_batchnorm(dropout=0.5), split, config, epochs=2)
    plan, model = schedules(config), with_batchnorm(dropout=0.5)
    again = learner_of(model, config, plan)
    for epoch in range(2):
        torch.manual_seed(epoch + 99)  # whatever happened in between
        torch.rand(5)
        train_epoch(again, split, plan, epoch)
    for left, right in zip(first.model.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(left, right)
    other, _ = train(with_batchnorm(dropout=0.5), split, dataclasses.replace(config, seed=1), epochs=2)
    assert not torch.equal(other.model.network[0].weight, model.network[0].weight)


def test_the_learning_rate_is_that_of_the_plan():
    config = config_of(training__epochs=4)
    learner, _ = train(linear(), split_of(), config, epochs=2)
    assert learner.optimizer.param_groups[0]["lr"] == schedules(config).lr[1]


def test_schedule_linear_changes_with_every_batch(monkeypatch):
    config = config_of(training__epochs=4, training__lr_schedule="linear", training__batch_size=8)
    split, plan, rates = split_of(40), schedules(config), []
    learner = learner_of(linear(), config, plan)
    update = learner.update
    monkeypatch.setattr(
        learner, "update", lambda *place: (rates.append(learner.optimizer.param_groups[0]["lr"]), update(*place))
    )
    train_epoch(learner, split, plan, 1)
    assert rates == pytest.approx([learning_rate(plan, config.training, 1, (batch + 0.5) / 5) for batch in range(5)])
    assert rates == sorted(set(rates), reverse=True)
    assert rates[2] == pytest.approx(plan.lr[1])


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_momentum_and_weight_decay_revive_nothing_in_the_masked_phase(scope):
    split = split_of(40)
    config = config_of(
        training__epochs=6, training__momentum=0.9, training__weight_decay=0.1, pruning__keep=0.3, pruning__scope=scope
    )
    plan, model = schedules(config), with_batchnorm()
    learner = learner_of(model, config, plan)
    weights = prunable_parameters(model)
    support = None
    for epoch in range(6):
        result = train_epoch(learner, split, plan, epoch)
        counts = sparsity_of(weights)
        assert result.nonzero == counts.nonzero
        if epoch < plan.masked_from:
            assert counts.nonzero == counts.weights
            continue
        assert counts.nonzero == budget_of(weights, 0.3)
        found = {name: weight != 0 for name, weight in weights.items()}
        assert support is None or all(torch.equal(found[name], support[name]) for name in found)
        support = found


def test_the_hard_projection_drops_momentum_and_admm_state_and_keeps_the_largest():
    split = split_of(16)
    config = config_of(training__epochs=4, training__momentum=0.9, pruning__keep=0.25)
    learner, _ = train(linear(), split, config, epochs=2)
    assert learner.optimizer.state
    assert learner.admm is not None
    weight = learner.weights["network.1.weight"]
    largest = set(weight.detach().abs().flatten().topk(12).indices.tolist())
    learner.prune(0.25)
    assert not learner.optimizer.state
    assert learner.admm is None
    assert set(weight.detach().flatten().nonzero().squeeze(1).tolist()) == largest


def test_a_weight_that_is_zero_at_the_projection_still_counts_among_the_kept():
    """A start that is sparser than keep: the mask is of positions, so the free ones grow to the exact count."""
    model = linear()
    with torch.no_grad():
        model.network[1].weight[1:] = 0
    config = config_of(training__epochs=1, pruning__keep=0.5, attack__eps=0.0)
    _, (result,) = train(model, split_of(), config)
    assert result.nonzero == 24


@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize(("count", "size"), [(9, 8), (17, 8), (3, 2), (8, 8), (2, 64)])
def test_a_lone_last_image_does_not_stop_batch_norm(eps, count, size):
    done = []
    config = config_of(attack__eps=eps, training__batch_size=size)
    plan = schedules(config)
    learner = learner_of(with_batchnorm(), config, plan)
    result = train_epoch(learner, split_of(count), plan, 0, lambda *row: done.append(row[:2]))
    batches = max(1, (count - 1 + size - 1) // size) if count % size == 1 else -(-count // size)
    assert done == [(i + 1, batches) for i in range(batches)]
    assert result.loss > 0


def test_rho_ends_at_its_largest_value_where_the_last_image_joins_another_batch():
    settings = {"admm__rho_schedule": "window", "admm__rho": 1e-3, "admm__rho_max": 1.0, "admm__interval": 1}
    config = config_of(training__epochs=5, training__batch_size=8, admm__masked_fraction=0.2, **settings)
    learner, _ = train(linear(), split_of(9), config, epochs=4)
    assert learner.admm.rho == pytest.approx(1.0)


def test_every_image_is_seen_once_per_epoch_and_in_another_order():
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(16, 3)

        def forward(self, images):
            if self.training:
                seen.extend(images.flatten(1).sum(1).tolist())
            return self.layer(images.flatten(1))

    torch.manual_seed(0)
    split = split_of(19)
    train(Normalized(Spy(), [0.0], [1.0]), split, config_of(attack__eps=0.0, training__batch_size=6), epochs=2)
    for epoch in (seen[:19], seen[19:]):
        assert sorted(epoch) == pytest.approx(sorted(split.floats(slice(None)).flatten(1).sum(1).tolist()))
    assert seen[:19] != pytest.approx(seen[19:])


def test_crafting_leaves_the_running_statistics_to_the_training_pass():
    """They follow the one forward pass on attacked and clean images, whatever the number of attack steps."""
    split = split_of()
    counts = []
    for steps in (1, 5):
        model = with_batchnorm()
        train(model, split, config_of(attack__steps=steps))
        counts.append(int(model.network[1].num_batches_tracked))
    assert counts == [1, 1]


def test_the_first_batches_of_a_phase_are_averaged():
    model, split, config = with_batchnorm(), split_of(), config_of(attack__eps=0.0, pruning__keep=1.0)
    order, images, _ = expected_batch(split, config)
    with torch.no_grad():
        mean = with_batchnorm().network[0]((images - 0.5) / 0.25).mean((0, 2, 3))
    train(model, split, config)
    assert torch.allclose(model.network[1].running_mean, mean, atol=1e-5)
    assert len(order) == 8


def test_every_layer_keeps_its_own_momentum_after_the_first_batches():
    model, config = with_batchnorm(), config_of(training__batch_size=2, attack__eps=0.0)
    plan, layer, seen = schedules(config), model.network[1], []
    layer.momentum = 0.3
    learner = learner_of(model, config, plan)
    layer.register_forward_hook(lambda module, *_: seen.append(module.momentum))
    train_epoch(learner, split_of(10), plan, 0)
    assert seen == pytest.approx([1, 1 / 2, 1 / 3, 0.3, 0.3])


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("epoch", [0, 1])
def test_an_epoch_in_two_parts_is_the_epoch(tmp_path, epoch, batches):
    """Order, augmentation, attack and dropout go on where they were; the part goes through a file."""
    split, config = split_of(24), config_of(data__augment=["flip", "shift"], training__momentum=0.9)
    plan, calls = schedules(config), []

    def stop():
        calls.append(1)
        return len(calls) == batches

    whole, broken = (learner_of(with_batchnorm(dropout=0.5), config, plan) for _ in range(2))
    for learner in (whole, broken):
        for earlier in range(epoch):
            train_epoch(learner, split, plan, earlier)
    expected = train_epoch(whole, split, plan, epoch)
    part = train_epoch(broken, split, plan, epoch, stop=stop)
    assert isinstance(part, EpochPart)
    torch.save({"part": vars(part), "learner": broken.state()}, tmp_path / "part.pt")
    saved = torch.load(tmp_path / "part.pt", weights_only=True)
    torch.manual_seed(99)
    other = learner_of(with_batchnorm(seed=5, dropout=0.5), config, plan)
    other.load_state(saved["learner"])
    assert train_epoch(other, split, plan, epoch, part=EpochPart(**saved["part"])) == expected
    pairs = zip(whole.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    assert all(torch.equal(left, right) for left, right in pairs)


def test_an_epoch_that_is_asked_at_its_last_batch_is_finished():
    config, calls = config_of(), []
    plan = schedules(config)
    result = train_epoch(learner_of(linear(), config, plan), split_of(24), plan, 0, stop=lambda: calls.append(1))
    assert not isinstance(result, EpochPart)
    assert len(calls) == 2


def test_state_goes_through_a_file_and_back(tmp_path):
    split = split_of(24)
    config = config_of(training__epochs=4, training__momentum=0.9, pruning__keep=0.25)
    plan = schedules(config)
    for epochs in (1, 3):  # in the ADMM phase, and in the masked one
        learner, _ = train(with_batchnorm(), split, config, epochs=epochs)
        torch.save(learner.state(), tmp_path / "state.pt")
        other = learner_of(with_batchnorm(seed=5), config, plan)
        other.load_state(torch.load(tmp_path / "state.pt", weights_only=True))
        for current in (learner, other):
            train_epoch(current, split, plan, epochs)
        pairs = zip(learner.model.state_dict().items(), other.model.state_dict().values(), strict=True)
        assert all(torch.equal(left, right) for (_, left), right in pairs)
        assert (other.admm is None) == (learner.admm is None)


def test_progress_shows_the_mean_loss_of_the_images_so_far():
    lines = []
    config = config_of(attack__eps=0.0, pruning__keep=1.0)
    plan = schedules(config)
    learner = learner_of(linear(), config, plan)
    result = train_epoch(learner, split_of(11), plan, 0, lambda done, total, text: lines.append((done, total, text)))
    assert lines[-1] == (2, 2, f"loss {result.loss:.3f}")
