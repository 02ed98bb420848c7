"""Which network is kept, and how it is judged."""

import pytest
import torch

from robust_edge.attacks.pgd import Pgd
from robust_edge.config.settings import resolve
from robust_edge.data import load_dataset
from robust_edge.data.holdout import hold_out
from robust_edge.evaluation.accuracy import accuracy_of, attack_split
from robust_edge.models import ModelSpec, build_model
from robust_edge.training.selection import (
    Snapshot,
    better,
    evaluate_held_out,
    guessing_limit,
    is_due,
    note_on_selection,
)
from robust_edge_runtimes.attacks.threat import Threat


def kept(epoch, robust, *, final=True, clean=1.0):
    return Snapshot(epoch, final, clean, robust, {})


def best(*networks, guessing=0.2):
    chosen = None
    for network in networks:
        chosen = better(chosen, network, guessing)
    return chosen.epoch


def test_the_most_robust_is_kept_and_of_equals_the_later():
    assert best(kept(1, 0.5), kept(2, 0.7), kept(3, 0.6)) == 2
    assert best(kept(1, 0.5), kept(2, 0.5)) == 2
    assert best(kept(1, 0.5, clean=0.9), kept(2, 0.5, clean=0.8)) == 1


def test_a_network_that_meets_the_constraint_replaces_one_that_does_not():
    assert best(kept(1, 0.9, final=False), kept(2, 0.5)) == 2
    assert best(kept(1, 0.9, final=False), kept(2, 0.95, final=False), kept(3, 0.3), kept(4, 0.25)) == 3


def test_a_network_that_guesses_replaces_none_that_does_not():
    assert best(kept(1, 0.9, final=False), kept(2, 0.2)) == 1
    assert best(kept(1, 0.1, final=False), kept(2, 0.15)) == 2


@pytest.mark.parametrize(("classes", "images", "limit"), [(10, 900, 0.12), (2, 100, 0.6)])
def test_guessing_is_two_deviations_above_chance(classes, images, limit):
    assert guessing_limit(classes, images) == pytest.approx(limit)


@pytest.mark.parametrize(
    ("held_out", "every", "judged"), [(0, 1, []), (5, 1, [0, 1, 2, 3, 4]), (5, 2, [1, 3, 4]), (5, 9, [4])]
)
def test_every_so_many_epochs_and_the_last(held_out, every, judged):
    flags = {"training.epochs": 5, "selection.held_out": held_out, "selection.every": every}
    assert [epoch for epoch in range(5) if is_due(resolve(flags=flags), epoch)] == judged


def test_the_judgement_is_pgd_at_the_full_radius_on_held_out_images():
    config = resolve(flags={"attack.eps": 0.05, "attack.eps_schedule": "linear", "selection.steps": 3, "seed": 4})
    dataset = load_dataset(config.data)
    torch.manual_seed(0)
    model = build_model(
        ModelSpec(arch="small_cnn", shape=dataset.shape, classes=dataset.classes, mean=(0.3,), std=(0.4,))
    )
    _, held_out = hold_out(dataset.train, 50)
    found = evaluate_held_out(model, held_out, config, epoch=3, final=False)
    expected = attack_split(model, held_out, Pgd(steps=3), Threat(0.05), seed=4)
    assert (found.clean, found.robust) == (accuracy_of(expected.clean).value, accuracy_of(expected.robust).value)
    with torch.no_grad():
        model.network[0].weight.zero_()  # the kept tensors are its own
    again = found.network(model)
    assert torch.count_nonzero(again.network[0].weight)
    assert torch.count_nonzero(model.network[0].weight) == 0
    assert not again.training


@pytest.mark.parametrize(
    ("flags", "noted"),
    [
        *(({"training.epochs": epochs}, True) for epochs in (1, 2, 3)),
        ({"training.epochs": 4}, False),
        ({"training.epochs": 30, "admm.regrow_until": 0.98}, True),
        ({"training.epochs": 3, "admm.regrow": 0.0}, False),
        ({"training.epochs": 3, "pruning.keep": 1.0}, False),
        ({"training.epochs": 3, "selection.held_out": 0}, False),
    ],
    ids=str,
)
def test_a_run_too_short_for_a_choice_of_an_epoch_is_noted(flags, noted):
    note = note_on_selection(resolve(preset="strong", flags=flags))
    assert (note is not None) == noted
    assert note is None or f"the network of epoch {flags['training.epochs']} is written" in note
