"""Images are drawn in blocks until the verdict is decided."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.modes import sequence
from robust_edge_runtimes.modes.mode import Mode
from robust_edge_runtimes.modes.sequence import judge_in_blocks
from robust_edge_runtimes.modes.settings import ModeSettings
from robust_edge_runtimes.modes.table import DEVICE_MODES
from robust_edge_runtimes.verdict.inspection import inspect_artifact
from robust_edge_runtimes.verdict.judge import FAIL, PASS, UNDECIDED
from robust_edge_runtimes.verdict.measurement import GRADIENTS, STORED, Budget, Measurement

ATTACK = AttackSpec("pgd", 0.05, 5, 0.02, 0)
BUDGET = Budget(2, 2)


@pytest.fixture
def judged(subject_for, monkeypatch):
    """judged(lost, available): the verdict on an artifact that loses these images, and the blocks it took.

    judged.labels: what the progress of each was called.
    """

    def run(lost, available):
        subject = subject_for(available=available)
        blocks = []

        def measure(mode, part, settings, progress):
            ids = np.arange(part.span[0], part.span[1]) if mode.draws else np.arange(60)
            blocks.append((mode.name, len(ids)))
            everyone = np.ones(len(ids), bool)
            robust = ~np.isin(ids, lost)
            works_with = GRADIENTS if mode.draws else STORED
            return Measurement(
                ATTACK, ids, everyone, everyone, everyone, robust, works_with, seconds=1.0, mode=mode.name
            )

        monkeypatch.setattr(Mode, "measure", measure)
        modes = (Mode("replay", "", "", draws=False), Mode("whitebox", "", ""))
        shown = run.labels.append
        return judge_in_blocks(subject, inspect_artifact(subject), modes, ModeSettings(), BUDGET, shown), blocks

    run.labels = []
    return run


def test_a_faithful_artifact_is_decided_at_the_first_look(judged):
    verdict, blocks = judged((), 5000)
    assert (verdict.outcome, verdict.looks) == (PASS, 1)
    assert blocks == [("replay", 60), ("whitebox", 500)]


def test_large_images_are_attacked_in_parts_of_a_block(judged, monkeypatch):
    """What a block of thousands of them takes would be more memory than there is."""
    whole, _ = judged(np.arange(0, 5000, 100), 5000)
    monkeypatch.setattr(sequence, "MANY_VALUES", 1)
    verdict, blocks = judged(np.arange(0, 5000, 100), 5000)
    assert blocks[:3] == [("replay", 60), ("whitebox", 50), ("whitebox", 50)]
    assert (verdict.outcome, verdict.looks, verdict.worst) == (whole.outcome, whole.looks, whole.worst)


def test_the_progress_names_the_images_where_not_all_are_attacked_at_once(judged):
    judged(np.arange(0, 1200, 50), 1200)
    others = [f"whitebox (mode 2 of 2, images {images})" for images in ("1 to 500", "501 to 1000", "1001 to 1200")]
    assert judged.labels == ["replay (mode 1 of 2)", *others]
    judged.labels.clear()
    judged((), 300)
    assert judged.labels == ["replay (mode 1 of 2)", "whitebox (mode 2 of 2)"]


@pytest.mark.parametrize("stop", [1, 49, 50, 99, 100, 2000])
def test_parts_are_all_of_a_block_and_none_is_too_small_to_count(stop):
    found = list(sequence.parts(3, 3 + stop, 1 << 26))
    assert [number for first, last in found for number in range(first, last)] == list(range(3, 3 + stop))
    assert min(last - first for first, last in found) >= min(stop, 50)


def test_a_bad_artifact_is_decided_at_the_first_look(judged):
    verdict, _ = judged(np.arange(0, 5000, 10), 5000)
    assert (verdict.outcome, verdict.looks, verdict.worst.images) == (FAIL, 1, 500)


def test_an_undecided_artifact_is_given_more_images_each_once(judged):
    verdict, blocks = judged(np.arange(0, 5000, 100), 5000)  # one point lost of a budget of two
    assert blocks[:2] == [("replay", 60), ("whitebox", 500)]
    assert {name for name, _ in blocks[2:]} == {"whitebox"}
    whitebox = next(mode for mode in verdict.modes if mode.mode == "whitebox")
    assert verdict.outcome == PASS
    assert verdict.looks == len(blocks) - 1 > 1
    assert whitebox.images == sum(count for name, count in blocks if name == "whitebox")
    assert whitebox.robust_drop.points == pytest.approx(1.0)
    assert whitebox.seconds == verdict.looks


def test_when_the_images_run_out_it_stays_undecided(judged):
    verdict, blocks = judged(np.arange(0, 5000, 50), 1200)  # exactly the budget
    assert (verdict.outcome, verdict.looks) == (UNDECIDED, 3)
    assert sum(count for name, count in blocks if name == "whitebox") == 1200
    assert len(verdict.undecided) == 1


def test_without_a_mode_that_draws_there_is_one_look(subject_for):
    settings = ModeSettings()
    subject = subject_for()
    verdict = judge_in_blocks(subject, inspect_artifact(subject), sequence_modes("replay"), settings, Budget(7, 7))
    assert (verdict.outcome, verdict.looks) == (PASS, 1)


@pytest.mark.parametrize(("limit", "told"), [(None, 0), (40, 1)])
def test_too_few_images_are_told_before_the_first_attack(limit, told, subject_for, monkeypatch):
    subject = subject_for(available=limit or 60)
    events = []
    measure = sequence._measure
    monkeypatch.setattr(sequence, "_measure", lambda *given: (events.append("attack"), measure(*given)))
    settings, modes = ModeSettings(limit, options={"queries": 5}), DEVICE_MODES
    judge_in_blocks(subject, inspect_artifact(subject), modes, settings, Budget(), note=events.append)
    assert events[-1] == "attack"
    assert ["40 images in modes replay, blackbox" in line for line in events[:-1]] == [True] * told


def sequence_modes(name):

    return tuple(mode for mode in DEVICE_MODES if mode.name == name)


def test_blocks_of_the_stored_images_are_the_whole_without_repetition(subject_for, monkeypatch):
    monkeypatch.setattr(sequence, "looks", lambda images: (55, images))
    subject = subject_for()
    verdict = judge_in_blocks(
        subject, inspect_artifact(subject), sequence_modes("blackbox"), ModeSettings(options={"queries": 5}), Budget()
    )
    assert verdict.outcome == UNDECIDED
    assert verdict.modes[0].images == 60


@pytest.mark.parametrize("allowed", [(), ("nothing_to_lose",)])
def test_a_checkpoint_that_guesses_is_named_before_anything_is_attacked(allowed, subject_for, monkeypatch):
    subject = subject_for()
    subject = dataclasses.replace(subject, reference=lambda images: np.eye(4, dtype=np.float32)[[0] * len(images)])
    attacked = []
    monkeypatch.setattr(sequence, "_measure", lambda part, modes, *rest: attacked.extend(mode.name for mode in modes))
    modes = (Mode("replay", "", "", draws=False), Mode("whitebox", "", ""))
    budget = Budget(2, 2, allowed_flags=allowed)
    verdict = judge_in_blocks(subject, inspect_artifact(subject), modes, ModeSettings(), budget)
    assert attacked == (["replay", "whitebox"] if allowed else ["replay"])
    details = [flag.detail for flag in verdict.flags if flag.name == "nothing_to_lose"]
    assert ["none was attacked" in detail for detail in details] == ([] if allowed else [True])


def test_a_class_of_few_images_stops_no_attack():
    """The checkpoint is right on all images but the two of a rare class."""
    labels = np.array([0] * 98 + [1] * 2)
    names = SimpleNamespace(manifest=SimpleNamespace(classes=("usual", "rare")))
    drawn = SimpleNamespace(labels=labels, ids=np.arange(100), clean=np.zeros((100, 1, 2, 2), np.float32))
    answer = np.eye(2, dtype=np.float32)[[0] * 97 + [1] + [0] * 2]
    assert not sequence._guesses(SimpleNamespace(images=drawn, bundle=names, reference=lambda _: answer)).raised
