"""Which losses and accuracies count as divergence, and which do not."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from robust_edge.config.settings import resolve
from robust_edge.run.metrics import EpochRow
from robust_edge.training.divergence import divergence, not_finite, note_on_collapse

CONFIG = resolve(flags={"selection.held_out": 900})  # guessing: up to 12% of ten classes


def row(epoch, loss=1.0, robust=None):
    return EpochRow(
        epoch=epoch, phase="admm", eps=0.1, steps=2, keep=0.1, lr=0.1, loss=loss, clean_loss=loss,
        adversarial_loss=loss, clean_accuracy=0.5, robust_accuracy=0.2, nonzero=1, rho=0.0, primal_residual=0.0,
        dual_residual=0.0, seconds=1.0, held_out_robust=robust,
    )  # fmt: skip


def diverged(*robust):
    rows = [row(n, robust=value) for n, value in enumerate(robust, 1)]
    return divergence(rows, CONFIG, 10, CONFIG.selection.held_out)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_no_number(loss):
    assert divergence([row(1), row(2, loss)], CONFIG, 10, CONFIG.selection.held_out) == f"the loss of epoch 2 is {loss}"


@pytest.mark.parametrize("name", ["adversarial_loss", "primal_residual", "dual_residual"])
def test_no_number_in_any_figure(name):
    found = divergence([row(1), dataclasses.replace(row(2), **{name: math.nan})], CONFIG, 10, CONFIG.selection.held_out)
    assert found == f"the {name} of epoch 2 is nan"


@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
def test_no_number_in_the_network(name):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    assert not_finite(model, 3) is None
    with torch.no_grad():
        model.state_dict()[name].view(-1)[1] = math.inf
    assert not_finite(model, 3) == f"{name} holds NaN or infinity after epoch 3"


def test_explosion_is_twenty_times_the_loss_of_guessing():
    limit = 20 * math.log(10)
    assert divergence([row(1, limit * 0.999)], CONFIG, 10, CONFIG.selection.held_out) is None
    found = divergence([row(1), row(2, limit * 1.001)], CONFIG, 10, CONFIG.selection.held_out)
    assert found is not None
    assert "epoch 2" in found


def test_trades_adds_beta_times_as_much():
    config = resolve(flags={"training.loss": "trades", "training.beta": 6.0})
    assert divergence([row(1, 139 * math.log(10))], config, 10, config.selection.held_out) is None
    assert divergence([row(1, 141 * math.log(10))], config, 10, config.selection.held_out) is not None


def test_two_judgements_at_chance_after_a_clearly_better_one():
    found = diverged(0.3, 0.6, 0.1, 0.12)
    assert found is not None
    assert "12.0%, which is chance level, after epoch 4; it was 60.0% after epoch 2" in found


@pytest.mark.parametrize(
    "robust",
    [
        (0.6, 0.1),  # one bad epoch, as after the hard projection
        (0.6, 0.1, 0.3, 0.1),  # not in a row
        (0.15, 0.1, 0.1),  # was never clearly above chance
        (0.6, 0.13, 0.13),  # bad, but above chance
        (0.1, 0.1, 0.1, 0.1),
        (0.1, 0.1),
        (0.6, 0.1, 0.1, None),  # already known; not judged in this epoch
        (None, None, None),
    ],
)
def test_what_is_no_collapse(robust):
    assert diverged(*robust) is None


def test_epochs_without_a_judgement_do_not_count():
    assert diverged(0.6, None, 0.1, None, 0.1) is not None


@pytest.mark.parametrize(
    ("held_out", "training", "collapsed"),
    [
        ((0.3, 0.4, 0.2, 0.15), (0.4, 0.45, 0.9, 0.9), True),
        ((0.3, 0.4, 0.4, 0.15), (0.4, 0.45, 0.5, 0.9), False),  # one epoch may be an accident
        ((0.3, 0.4, 0.25, 0.25), (0.4, 0.45, 0.9, 0.9), False),  # overfits, but has not lost half
        ((0.3, 0.4, 0.2, 0.15), (0.4, 0.45, 0.25, 0.2), False),  # the training attack falls, too: the network is worse
    ],
)
def test_collapse_is_seen_by_the_training_attack_no_more(held_out, training, collapsed):
    rows = [
        dataclasses.replace(row(epoch, robust=robust), robust_accuracy=seen)
        for epoch, (robust, seen) in enumerate(zip(held_out, training, strict=True), 1)
    ]
    found = divergence(rows, CONFIG, 10, CONFIG.selection.held_out)
    assert (found is not None) == collapsed
    assert found is None or "fell to 15.0% after epoch 4, it was 40.0% after epoch 2" in found


def overfitted(held_out, training, masked_from, config=CONFIG):
    rows = [
        dataclasses.replace(
            row(epoch, robust=robust), robust_accuracy=seen, phase=["admm", "masked"][epoch > masked_from]
        )
        for epoch, (robust, seen) in enumerate(zip(held_out, training, strict=True), 1)
    ]
    return divergence(rows, config, 10, config.selection.held_out)


def test_collapse_at_the_projection_is_seen_after_two_judgements_of_the_new_phase():
    held_out, training = (0.3, 0.4, *[0.13] * 5), (0.4, 0.45, *[0.9] * 5)
    assert overfitted(held_out[:4], training[:4], masked_from=3) is None  # one judgement of the masked phase
    found = overfitted(held_out[:4], training[:4], masked_from=2)
    assert found is not None
    assert "fell to 13.0% after epoch 4, it was 40.0% after epoch 2" in found
    assert overfitted(held_out, training, masked_from=2) is not None


@pytest.mark.parametrize(
    ("flags", "advice"),
    [
        ({"attack.method": "n-fgsm", "attack.steps": 1}, "90.0%; attack.method=pgd with attack.steps=2 is more stable"),
        ({"attack.steps": 1}, "90.0%; a larger attack.steps is more stable"),
    ],
)
def test_the_advice_is_one_that_the_attack_can_take(flags, advice):
    config = resolve(flags={"selection.held_out": 900, **flags})
    assert overfitted((0.4, 0.13, 0.13), (0.4, 0.9, 0.9), masked_from=3, config=config).endswith(advice)


def test_chance_level_is_that_of_the_images_that_are_held_out():
    rows = [row(n, robust=value) for n, value in enumerate((0.45, 0.45, 0.175, 0.175), 1)]
    config = resolve(flags={"selection.held_out": 1000})  # of 200 images 40 are
    assert divergence(rows, config, 10, 1000) is None
    assert "fell to 17.5%, which is chance level" in divergence(rows, config, 10, 40)


@pytest.mark.parametrize(
    ("flags", "noted"),
    [
        ({"attack.method": "n-fgsm", "attack.steps": 1}, True),
        ({"attack.steps": 1}, True),
        ({"training.loss": "nuclear", "attack.steps": 1}, True),
        ({"attack.steps": 2}, False),
        ({"attack.steps": 1, "attack.eps": 0.0}, False),
        ({"attack.steps": 1, "selection.held_out": 100}, False),
    ],
)
def test_one_step_without_held_out_images_is_noted(flags, noted):
    note = note_on_collapse(resolve(flags=flags))
    assert (note is not None) == noted
    assert note is None or "set selection.held_out" in note
