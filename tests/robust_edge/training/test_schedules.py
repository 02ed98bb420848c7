"""Sequences written out by hand from section 3.1."""

import math

import hypothesis
import pytest
from hypothesis import strategies as st

from robust_edge.config.settings import resolve
from robust_edge.training.schedules import note_on_random_weights, pruned_at, schedules
from robust_edge_runtimes.core.errors import InputError


def plan(**flags):
    return schedules(resolve(flags={name.replace("__", "."): value for name, value in flags.items()}))


@pytest.mark.parametrize(
    ("epochs", "thirds"),
    [
        (1, [3]),
        (2, [2, 3]),
        (3, [1, 2, 3]),
        (6, [1, 1, 2, 2, 3, 3]),
        (9, [1, 1, 1, 2, 2, 2, 3, 3, 3]),
    ],
)
def test_radius_rises_every_third_and_ends_at_its_maximum(epochs, thirds):
    found = plan(attack__eps_schedule="thirds", attack__eps=0.1, training__epochs=epochs).eps
    assert list(found) == pytest.approx([0.1 * third / 3 for third in thirds])
    assert found[-1] == 0.1


@pytest.mark.parametrize(
    ("epochs", "halves"), [(1, [1]), (2, [1, 1]), (4, [0.5, 1, 1, 1]), (9, [0.25, 0.5, 0.75, 1, 1, 1, 1, 1, 1])]
)
def test_radius_rises_linearly_over_the_first_half(epochs, halves):
    found = plan(attack__eps_schedule="linear", attack__eps=0.1, training__epochs=epochs).eps
    assert list(found) == pytest.approx([0.1 * part for part in halves])


def test_steps_grow_every_epoch_up_to_s_and_restart_when_the_radius_steps():
    found = plan(
        attack__eps_schedule="thirds", attack__steps_schedule="grow", attack__steps=3, training__epochs=12
    ).steps
    assert found == (1, 2, 3, 3, 1, 2, 3, 3, 1, 2, 3, 3)


def test_steps_grow_without_restart_under_a_constant_or_falling_radius():
    assert plan(attack__steps_schedule="grow", attack__steps=4, training__epochs=6).steps == (1, 2, 3, 4, 4, 4)
    radii = {"attack__eps": 0.3, "attack__eps_schedule": [0.2, 0.1, 0.1, 0.3]}
    falling = plan(**radii, attack__steps_schedule="grow", attack__steps=9, training__epochs=4)
    assert falling.steps == (1, 2, 3, 1)


def test_constant_is_constant():
    found = plan(training__epochs=4, attack__eps=0.2, attack__steps=5, pruning__keep=0.3)
    assert found.eps == (0.2,) * 4
    assert found.steps == (5,) * 4
    assert found.keep == (0.3,) * 4


def test_keep_halves_down_to_its_end_and_stays_there_in_the_masked_phase():
    found = plan(pruning__keep=0.1, pruning__keep_schedule="halve", training__epochs=12, admm__masked_fraction=0.34)
    assert found.masked_from == 7
    assert found.keep == (0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.1, *(0.1,) * 5)


@pytest.mark.parametrize("keep", [0.75, 0.5, 0.25, 1 - 1e-12])
def test_halving_to_more_than_a_half_or_a_power_of_two(keep):
    found = plan(pruning__keep=keep, pruning__keep_schedule="halve", training__epochs=6, admm__masked_fraction=0.3)
    assert found.keep[-3:] == (keep,) * 3
    assert all(left >= right for left, right in zip(found.keep, found.keep[1:], strict=False))


@pytest.mark.parametrize(
    ("epochs", "fraction", "masked_from"), [(1, 0.34, 0), (2, 0.34, 1), (3, 0.34, 1), (10, 0.4, 6), (200, 0.34, 132)]
)
def test_masked_phase_takes_at_least_its_share_and_one_epoch(epochs, fraction, masked_from):
    found = plan(training__epochs=epochs, admm__masked_fraction=fraction)
    assert found.masked_from == masked_from
    assert epochs - masked_from >= epochs * fraction


@pytest.mark.parametrize(("share", "first", "pruned_earlier"), [(0.34, 9, 8), (0.5, 8, 6), (0.01, 9, 9), (1.0, 6, 3)])
def test_integers_take_their_share_of_the_masked_phase_and_at_least_one_epoch(share, first, pruned_earlier):
    flags = {"training.epochs": 10, "admm.masked_fraction": 0.4, "training.quantize_share": share}
    assert schedules(resolve(flags=flags)).quantized_from == 10
    config = resolve(flags={**flags, "training.quantize": "int8"})
    found = schedules(config)
    assert (found.masked_from, found.quantized_from) == (6, first)
    assert pruned_at(found, config, 3).quantized_from == pruned_earlier


@pytest.mark.parametrize(
    ("epochs", "admm_from", "masked_from"),
    [(5, 0, 2), (54, 5, 24), (60, 6, 27), (100, 10, 45), (180, 18, 81), (200, 20, 90), (220, 22, 99)],
)
def test_the_phases_of_preset_strong_are_not_moved_by_rounding(epochs, admm_from, masked_from):
    found = schedules(resolve(preset="strong", flags={"training.epochs": epochs}))
    assert (found.admm_from, found.masked_from) == (admm_from, masked_from)


def test_a_fraction_of_the_epochs_is_not_moved_by_rounding():
    assert 0.29 * 100 < 29
    assert plan(training__epochs=100, admm__start=0.29).admm_from == 29


def test_a_dense_run_has_no_masked_phase():
    assert plan(pruning__keep=1.0, training__epochs=5).masked_from == 5


def test_step_decay_by_hand():
    found = plan(
        training__lr_schedule="step", training__lr=0.08, training__lr_step=2, training__lr_decay=0.5, training__epochs=5
    )
    assert found.lr == pytest.approx((0.08, 0.08, 0.04, 0.04, 0.02))


def test_cosine_falls_once_before_and_once_after_the_hard_projection():
    found = plan(training__lr=0.2, training__epochs=6, admm__masked_fraction=0.34).lr
    assert found == pytest.approx((0.2, 0.15, 0.05, 0.2, 0.15, 0.05))


def test_lists_are_taken_as_they_are():
    found = plan(
        training__epochs=3,
        admm__masked_fraction=0.3,
        attack__eps_schedule=[0.0, 0.05, 0.1],
        attack__steps_schedule=[1, 5, 2],
        pruning__keep_schedule=[0.9, 0.4],
        pruning__keep=0.2,
        training__lr_schedule=[0.2, 0.1, 0.3],
    )
    assert found.eps == (0.0, 0.05, 0.1)
    assert found.steps == (1, 5, 2)
    assert found.keep == (0.9, 0.4, 0.2)
    assert found.lr == (0.2, 0.1, 0.3)


@pytest.mark.parametrize(
    ("key", "values", "needed"),
    [
        ("attack.eps_schedule", [0.1, 0.1], 3),
        ("attack.steps_schedule", [1, 2, 3, 4], 3),
        ("pruning.keep_schedule", [0.5, 0.4, 0.3], 2),
        ("training.lr_schedule", [0.1], 3),
    ],
)
def test_a_list_of_the_wrong_length_names_key_and_lengths(key, values, needed):
    config = resolve(flags={"training.epochs": 3, "admm.masked_fraction": 0.3, key: values})
    with pytest.raises(InputError, match=f"{key} has {len(values)} values, it needs {needed}"):
        schedules(config)


def test_the_thesis_preset_is_the_thesis():
    config = resolve(preset="thesis")
    found = schedules(config)
    assert len(found.eps) == 200
    assert found.lr[:10] == (0.05,) * 10
    assert found.lr[10] < 0.05
    assert [sum(math.isclose(eps, 0.1 * third / 3) for eps in found.eps) for third in (1, 2, 3)] == [66, 67, 67]
    steps_up = [i for i in range(1, 200) if found.eps[i] > found.eps[i - 1]]
    assert [found.steps[i] for i in steps_up] == [1, 1]
    assert found.keep[0] == 0.5
    assert found.keep[-1] == 0.1


@hypothesis.given(
    st.integers(1, 40), st.sampled_from(["constant", "halve"]), st.floats(0.001, 1), st.floats(0.01, 0.99)
)
def test_every_schedule_has_one_value_per_epoch(epochs, schedule, keep, fraction):
    found = plan(
        training__epochs=epochs,
        pruning__keep_schedule=schedule,
        pruning__keep=keep,
        admm__masked_fraction=fraction,
        attack__eps_schedule="thirds",
        attack__steps_schedule="grow",
    )
    assert [len(values) for values in (found.eps, found.steps, found.keep, found.lr)] == [epochs] * 4
    assert all(keep <= value <= 1 for value in found.keep)
    assert found.keep[found.masked_from :] == (keep,) * (epochs - found.masked_from)
    assert all(value > 0 for value in found.lr)
    assert all(1 <= steps <= 7 for steps in found.steps)


def test_line_rises_falls_and_ends_in_a_tail():
    flags = {"training__lr_schedule": "linear", "training__lr": 0.2, "training__epochs": 20}
    found = plan(**flags, training__lr_warmup=0.1, training__lr_end=0.6, training__lr_tail=0.01).lr
    assert found[:3] == pytest.approx([0.05, 0.15, 0.2 * (0.6 - 0.125) / 0.5])
    assert found[12:] == (0.2 * 0.01,) * 8
    assert list(found[2:13]) == sorted(set(found[2:13]), reverse=True)


def test_line_without_warm_up_starts_at_the_top():
    found = plan(training__lr_schedule="linear", training__lr=1.0, training__epochs=10, training__lr_warmup=0.0).lr
    assert found[0] == pytest.approx(0.8 / 0.85)
    with pytest.raises(InputError, match=r"training\.lr_warmup must be below"):
        plan(training__lr_warmup=0.9)


def test_radius_rises_over_a_fraction_of_the_run():
    found = plan(attack__eps_schedule="linear", attack__eps_rise=0.3, attack__eps=0.3, training__epochs=10).eps
    assert found == pytest.approx([0.1, 0.2, *[0.3] * 8])


def test_admm_begins_at_a_fraction_of_the_run():
    found = plan(admm__start=0.1, admm__masked_fraction=0.55, training__epochs=20)
    assert (found.admm_from, found.masked_from) == (2, 9)
    assert plan(training__epochs=20).admm_from == 0
    assert plan(pruning__keep=1.0, training__epochs=4).admm_from == 4
    with pytest.raises(InputError, match=r"admm\.start must be below"):
        plan(admm__start=0.5, admm__masked_fraction=0.5)


@pytest.mark.parametrize(
    ("flags", "noted"),
    [
        ({"training.epochs": 1}, True),
        ({"training.epochs": 20, "admm.masked_fraction": 0.99}, True),
        ({"training.epochs": 1, "pruning.keep": 1.0}, False),
        ({"training.epochs": 1, "init": "run"}, False),
        ({"training.epochs": 2}, False),
    ],
    ids=str,
)
def test_weights_that_are_pruned_before_they_are_trained_are_noted(flags, noted):
    note = note_on_random_weights(resolve(flags=flags))
    assert (note is not None) == noted
    assert note is None or f"training.epochs is {flags['training.epochs']} and" in note


def test_perturbation_only_in_its_windows():
    config = resolve(flags={"awp.gamma": 0.01, "awp.windows": [0.1, 0.45, 0.7, 1.0], "training.epochs": 10})
    middles = [config.awp.active(epoch + 0.5, 10) for epoch in range(10)]
    assert middles == [epoch in (1, 2, 3, 7, 8, 9) for epoch in range(10)]
    assert [resolve(flags={"awp.warmup": 2}).awp.active(epoch, 4) for epoch in range(4)] == [False, False, True, True]
    places = {place: config.awp.active(place, 10) for place in (0.9, 1.0, 4.4, 4.6, 6.9, 7.1)}
    assert places == {0.9: False, 1.0: True, 4.4: True, 4.6: False, 6.9: False, 7.1: True}
    assert [config.awp.active_in(epoch, 10) for epoch in (0, 1, 4, 5, 6, 7)] == [False, True, True, False, False, True]
    narrow = resolve(flags={"awp.gamma": 0.01, "awp.windows": [0.72, 0.78]}).awp  # less than an epoch of five
    assert [narrow.active_in(epoch, 5) for epoch in range(5)] == [False, False, False, True, False]
    assert narrow.active(3.75, 5)
    for wrong in ([], [0.1], [0.5, 0.2], [0.1, 1.5]):
        with pytest.raises(InputError, match=r"awp\.windows must be (pairs of rising fractions|0 to 1)"):
            resolve(flags={"awp.windows": wrong})
