from __future__ import annotations

import dataclasses
import itertools
import json
import re

import numpy as np
import pytest

from robust_edge_runtimes.core.decode import MAX_LINE
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.modes.replay import replay
from robust_edge_runtimes.modes.settings import ModeSettings
from robust_edge_runtimes.present.verdict import verdict_table
from robust_edge_runtimes.verdict.checks import Answers, nothing_to_lose
from robust_edge_runtimes.verdict.flags import OTHER_LOGITS, Flag
from robust_edge_runtimes.verdict.inspection import inspect_artifact
from robust_edge_runtimes.verdict.judge import FAIL, PASS, UNDECIDED, MachineResult, judge, with_outcome
from robust_edge_runtimes.verdict.measurement import GRADIENTS, LOGITS, STORED, Budget, Measurement, Rebuild
from robust_edge_runtimes.verdict.statistic import MIN_IMAGES

ATTACK = AttackSpec("pgd", 0.05, 5, 0.02, 0)
WIDE = Budget(100, 100)


def measurement(mode, works_with, right, **changes):
    everyone = np.ones(len(right), bool)
    arrays = (np.arange(len(right)), everyone, everyone, everyone.copy(), np.array(right, bool))
    return Measurement(ATTACK, *arrays, works_with, mode=mode, **changes)


def wrong(linear):
    return lambda images: np.roll(linear.logits(images), 1, axis=1)


def test_the_checkpoint_itself_passes_and_the_verdict_names_what_was_judged(subject_for, opened):
    subject = subject_for()
    replayed = replay(subject, ModeSettings())
    verdict = judge(inspect_artifact(subject), [replayed], Budget(7, 7))
    assert verdict.modes == (replayed.result(Budget(7, 7)),)
    assert verdict.passed
    assert verdict.outcome == PASS
    assert (verdict.reasons, verdict.flags) == ((), ())
    assert verdict.artifact_sha256 == opened.manifest.artifact.sha256
    assert verdict.checkpoint_sha256 == opened.manifest.source.checkpoint_sha256
    assert verdict.runtime.backend == "fake"


def test_another_network_fails_and_says_by_how_much(subject_for, linear):
    subject = subject_for(wrong(linear))
    verdict = judge(inspect_artifact(subject), [replay(subject, ModeSettings())], Budget())
    assert not verdict.passed
    names = [reason.split(":")[0] for reason in verdict.reasons]
    assert names == ["clean_drop", "robust_drop", "not_the_checkpoint"]
    assert verdict.parity.argmax_agreement < 1


def test_a_drop_within_the_budget_passes(subject_for, linear):
    subject = subject_for(wrong(linear))
    budget = Budget(100, 100, ("not_the_checkpoint",))
    assert judge(inspect_artifact(subject), [replay(subject, ModeSettings())], budget).passed


def test_what_few_images_cannot_rule_out_is_undecided(subject_for):
    subject = subject_for()
    for budget, lines in ((Budget(1, 1), 2), (Budget(1, 7), 1), (Budget(7, 7), 0)):
        verdict = judge(inspect_artifact(subject), [replay(subject, ModeSettings())], budget)
        assert (verdict.outcome, verdict.passed) == ((UNDECIDED, False) if lines else (PASS, True))
        assert len(verdict.undecided) == lines
        assert all("about 410 images would decide" in line for line in verdict.undecided)


def test_an_early_look_needs_more_to_pass(subject_for):
    """Of 200 images none is lost: enough for 2.1 points at the last look, not at the first of many."""
    right = measurement("whitebox", GRADIENTS, [True] * 200)
    assert judge(inspect_artifact(subject_for()), [right], Budget(2.1, 2.1)).outcome == PASS
    first = judge(inspect_artifact(subject_for()), [right], Budget(2.1, 2.1), look=1, last=False)
    assert (first.outcome, first.looks) == (UNDECIDED, 1)


def test_too_few_images_decide_nothing(subject_for):
    subject = subject_for()
    for limit, passed in ((MIN_IMAGES - 1, False), (MIN_IMAGES, True)):
        verdict = judge(inspect_artifact(subject), [replay(subject, ModeSettings(limit))], WIDE)
        assert verdict.passed is passed
        assert any("too_few_images" in line for line in verdict.undecided) is not passed
        assert (verdict.outcome, verdict.reasons) == (PASS if passed else UNDECIDED, ())


def test_one_line_names_all_modes_of_too_few_images(subject_for):
    found = [measurement("replay", STORED, [True] * 32, available=32)]
    found += [measurement(mode, GRADIENTS, [True] * 40, available=40) for mode in ("surrogate", "whitebox")]
    verdict = judge(inspect_artifact(subject_for()), found, WIDE)
    assert verdict.undecided == (
        "too_few_images: 32 images in mode replay and 40 images in modes surrogate, whitebox; at least 50 are needed: "
        "export with --golden 50 or more, verify with more test images",
    )


@pytest.mark.parametrize(
    ("available", "budget", "way_out"),
    [
        (200, 1, "no more than 200 are available; these 200 suffice for `--max-robust-drop 2.1` or more"),
        (440, 1, "440 are available: raise --limit; these 200 suffice for"),
        (300, 1, "only 300 are available; these 200 suffice for"),
        (None, 1, "images would decide"),
    ],
)
def test_an_undecided_drop_names_its_ways_out(available, budget, way_out, subject_for):
    found = measurement("whitebox", GRADIENTS, [True] * 200, available=available)
    verdict = judge(inspect_artifact(subject_for()), [found], Budget(100, budget))
    (line,) = verdict.undecided
    assert way_out in line
    assert len(line) < MAX_LINE
    assert judge(inspect_artifact(subject_for()), [found], Budget(100, 2.1)).outcome == PASS


def test_the_table_says_that_replay_used_other_images(subject_for):
    found = [measurement("replay", STORED, [True] * 60)]
    found += [measurement(mode, GRADIENTS, [True] * 60) for mode in ("surrogate", "whitebox")]
    same = [dataclasses.replace(item, available=60) for item in found]
    samples = (found, found[1:], same)
    tables = [verdict_table(judge(inspect_artifact(subject_for()), sample, WIDE)) for sample in samples]
    assert ["replay attacks the images that the bundle stores" in shown for shown in tables] == [True, False, False]


def test_nothing_checked_fails(subject_for):
    verdict = judge(inspect_artifact(subject_for()), [], WIDE)
    assert not verdict.passed
    assert verdict.reasons == ("nothing_checked: no mode was run",)


@pytest.mark.parametrize(("differences", "outcome"), [((), UNDECIDED), (("model.onnx: node 3",), FAIL)])
def test_a_comparison_of_files_alone_is_no_pass(subject_for, differences, outcome):
    rebuild = Rebuild(not differences, differences, ("model.onnx",), 1.0)
    verdict = judge(inspect_artifact(subject_for()), [rebuild], WIDE)
    assert verdict.outcome == outcome
    assert [line.split(":")[0] for line in verdict.undecided] == ["only_rebuilt"]


def test_the_number_of_images_that_would_decide_counts_churn(subject_for):
    """A net loss of one image needs more images where ten others went either way."""

    def needed(lost, gained):
        artifact = np.arange(400) < 400 - lost
        found = measurement("whitebox", GRADIENTS, artifact)
        found.reference_robust[:gained] = False
        verdict = judge(inspect_artifact(subject_for()), [found], Budget(100, 1))
        return int(verdict.undecided[0].split("about ")[1].split()[0])

    assert needed(1, 0) < needed(6, 5) < needed(11, 10)


def test_a_tolerance_of_the_bundle_itself_is_named(subject_for, linear):
    (note,) = (note for note in judge(inspect_artifact(subject_for()), [], WIDE).notes if "tolerance" in note)
    assert "without the run the tolerance of logits" in note
    assert "0.001" in note
    measured = dataclasses.replace(subject_for(reference=linear.logits), measured_tolerance=1e-4)
    assert not any("without the run" in note for note in judge(inspect_artifact(measured), [], WIDE).notes)


def test_one_bad_mode_among_good_ones_fails(subject_for, linear):
    subjects = [subject_for(), subject_for(wrong(linear))]
    replayed = [replay(subject, ModeSettings()) for subject in subjects]
    for modes in itertools.permutations(replayed):
        assert not judge(inspect_artifact(subjects[0]), modes, Budget()).passed


def test_logits_that_turn_to_nan_are_randomised(subject_for, linear):
    """Finite in the first pass and not in the second."""
    calls = itertools.count()
    subject = subject_for(lambda images: linear.logits(images) * np.float32(np.nan if next(calls) % 2 else 1))
    assert "randomised" in {flag.name for flag in judge(inspect_artifact(subject), [], WIDE).flags}


def test_what_several_modes_found_is_one_reason(subject_for, linear):
    subject = subject_for(lambda images: linear.logits(images) * np.float32(-1 if len(images) == 1 else 1))
    flags = subject.clean.flags
    assert [flag.name for flag in flags] == ["batch_dependent"]
    modes = [measurement(mode, GRADIENTS, [True] * 60, flags=flags) for mode in ("surrogate", "whitebox")]
    names = [reason.split(":")[0] for reason in judge(inspect_artifact(subject), modes, WIDE).reasons]
    assert names == ["batch_dependent"]


def test_a_black_box_that_beats_the_white_boxes_is_a_flag(subject_for):
    """Beyond chance and by more than a point of the images; three of 200 may be chance."""
    right = np.ones(200, bool)
    white = [measurement(mode, GRADIENTS, right) for mode in ("surrogate", "whitebox")]
    for broken, flagged in ((3, False), (20, True)):
        black = measurement("blackbox", LOGITS, np.arange(200) >= broken)
        names = {flag.name for flag in judge(inspect_artifact(subject_for()), [*white, black], WIDE).flags}
        assert ("black_box_beats_white_box" in names) is flagged
    weak = measurement("whitebox", GRADIENTS, np.arange(200) >= 20)  # one of them broke the same images
    assert judge(inspect_artifact(subject_for()), [white[0], weak, black], WIDE).flags == ()


def test_the_worst_case_can_fail_where_no_mode_does(subject_for):
    right = [np.ones(400, bool) for _ in range(2)]
    right[0][:6] = right[1][6:12] = False  # 1.5 points each: within chance; 3 points together: not
    modes = [measurement(mode, GRADIENTS, row) for mode, row in zip(("surrogate", "whitebox"), right, strict=True)]
    for one in modes:
        assert judge(inspect_artifact(subject_for()), [one], Budget()).outcome == UNDECIDED
    verdict = judge(inspect_artifact(subject_for()), modes, Budget())
    assert verdict.outcome == FAIL
    assert [reason.partition(":")[0] for reason in verdict.reasons] == ["robust_drop"]
    assert "over all modes (surrogate, whitebox)" in verdict.reasons[0]


def test_a_checkpoint_that_all_modes_together_break_has_nothing_to_lose(subject_for):
    """Each mode alone leaves it a third of the images, another third each."""
    robust = [np.arange(120) % 3 == i for i in range(3)]
    found = [
        dataclasses.replace(measurement(f"mode {i}", GRADIENTS, right), reference_robust=right)
        for i, right in enumerate(robust)
    ]
    apart = judge(inspect_artifact(subject_for()), found[:1], WIDE)
    together = judge(inspect_artifact(subject_for()), found, WIDE)
    assert "nothing_to_lose" not in {flag.name for flag in apart.flags}
    assert "nothing_to_lose" in {flag.name for flag in together.flags}
    assert together.outcome == UNDECIDED


@pytest.mark.parametrize(
    ("works_with", "says"),
    [
        (
            STORED,
            r"of the stored images under their attack of eps 0\.05, .* an export with a smaller eps, or a network",
        ),
        (GRADIENTS, r"under attack in mode some, .* a smaller radius \(eps\), or a network"),
    ],
)
def test_a_mode_that_leaves_nothing_to_lose_is_named_with_the_way_out(works_with, says, subject_for):
    """A smaller radius of `verify` does not change the stored images."""
    none = np.zeros(60, bool)
    found = dataclasses.replace(measurement("some", works_with, none), reference_robust=none)
    (line,) = judge(inspect_artifact(subject_for()), [found], WIDE).undecided
    assert re.search(says, line)


@pytest.mark.parametrize(("others", "flagged"), [(0, True), (3, False)])
def test_a_checkpoint_that_gives_one_answer_for_all_images_has_nothing_to_lose(others, flagged, subject_for):
    """It is right on 95% of the images, since they are of one class."""
    labels = (np.arange(200) < 10).astype(np.int64)
    right = (labels == 0) | (np.arange(200) < others)
    found = dataclasses.replace(measurement("whitebox", GRADIENTS, right), reference_robust=right, labels=labels)
    verdict = judge(inspect_artifact(subject_for()), [found], WIDE)
    details = [flag.detail for flag in verdict.flags if flag.name == "nothing_to_lose"]
    assert [("50.0%, as a mean over the classes, under attack" in detail) for detail in details] == [True] * flagged


@pytest.mark.parametrize(
    ("by_class", "flagged"),
    [
        ([(493, 497), (0, 3)], False),  # three images of a class say nothing about it
        ([(497, 497), (0, 3)], True),  # but one answer explains all of these
        ([(490, 495), (0, 5)], True),
        ([(490, 495), (1, 5)], False),
        ([(400, 440), *[(0, 4)] * 15], True),  # 60 images of rare classes, none right
        ([(400, 440), *[(1, 4)] * 15], False),
        ([(1, 1)] * 200 + [(0, 1)] * 300, False),
    ],
)
def test_a_class_of_few_images_makes_no_checkpoint_a_guess(by_class, flagged):
    right = np.repeat([True, False], [sum(r for r, _ in by_class), sum(n - r for r, n in by_class)])
    assert nothing_to_lose([Answers(right)], max(len(by_class), 2), by_class).raised == flagged


def test_an_allowed_flag_hides_no_other(subject_for, linear):
    """Logits that depend on the batch, and are a multiple of the checkpoint's for what they are."""
    subject = subject_for(lambda images: linear.logits(images) * np.float32(100 if len(images) > 1 else 1))
    names = {flag.name for flag in judge(inspect_artifact(subject), [], WIDE).flags}
    assert {"batch_dependent", "scaled_logits"} <= names


def test_one_image_without_finite_logits_hides_no_other_flag(subject_for, linear, golden):
    """The same image in every pass; the others are scaled, and wrong when alone."""
    unanswered = golden.clean[5].tobytes()

    def function(images):
        logits = linear.logits(images) * np.float32(100 if len(images) > 1 else 1)
        logits[[image.tobytes() == unanswered for image in images]] = np.nan
        return logits

    names = {flag.name for flag in judge(inspect_artifact(subject_for(function)), [], WIDE).flags}
    assert {"non_finite", "batch_dependent", "scaled_logits"} <= names
    assert "randomised" not in names


def test_what_a_terminal_obeys_is_shown_as_escapes(subject_for):
    line = "\x1b[2J\nPASS \udcff\u202e"
    found = measurement("whitebox", GRADIENTS, [True] * 60, flags=(Flag("false_claim", line),))
    text = verdict_table(judge(inspect_artifact(subject_for()), [found], WIDE))
    assert "false_claim: \\x1b[2J\\nPASS \\udcff\\u202e" in text


def test_no_line_of_a_verdict_is_longer_than_a_reader_reads(subject_for):
    """Names of a bundle are in them, which may have any length."""
    name = "n" * 100_000
    found = Rebuild(False, (f"node {name} is not in the export",) * 5, (), 0.0, notes=(name,))
    inspection = dataclasses.replace(inspect_artifact(subject_for()), remarks=(name,))
    verdict = judge(inspection, [found], Budget())
    shown = [*verdict_table(verdict).split("\n"), *verdict.reasons, *verdict.notes, *verdict.remarks]
    assert max(map(len, shown)) < 1100
    assert len(json.dumps(dataclasses.asdict(verdict))) < 15_000
    assert any(reason.startswith("rebuild_differs: node nnn") for reason in verdict.reasons)


@pytest.mark.parametrize(("queries", "outcome"), [(None, UNDECIDED), (499, UNDECIDED), (500, PASS)])
@pytest.mark.parametrize("allowed", [(), ("gradient_untested",)])
def test_a_gradient_that_nothing_tests_needs_the_black_box(queries, outcome, allowed, subject_for):
    flag = Flag("gradient_untested", "the checkpoint's own gradient predicts nothing")
    found = [measurement("whitebox", GRADIENTS, [True] * 200, flags=(flag,))]
    if queries is not None:
        square = dataclasses.replace(ATTACK, name="square", steps=queries)
        found.append(dataclasses.replace(measurement("blackbox", LOGITS, [True] * 200), attack=square))
    verdict = judge(inspect_artifact(subject_for()), found, Budget(7, 7, allowed))
    assert (verdict.outcome, verdict.reasons) == (outcome, ())
    assert [line.split(":")[0] for line in verdict.undecided] == ["no_black_box"] * (outcome == UNDECIDED)
    assert any("gradient_untested: the checkpoint's own" in note for note in verdict.notes)


EQUAL = Rebuild(True, (), ("model.onnx",), 1.0)


def own_export(subject_for, budget=None, *, precision="fp32", lost=0, flags=(), rebuild=EQUAL):
    """The verdict on 100 images, too few to decide 1 point; the files are those that the run exports."""
    subject = subject_for()
    manifest = subject.bundle.manifest
    artifact = dataclasses.replace(manifest.artifact, precision=precision)
    inspection = dataclasses.replace(
        inspect_artifact(subject), manifest=dataclasses.replace(manifest, artifact=artifact)
    )
    found = measurement("whitebox", GRADIENTS, np.arange(100) >= lost, flags=flags)
    return judge(inspection, [found, rebuild], budget or Budget())


def test_an_own_export_in_fp32_passes_where_the_images_do_not_contradict_it(subject_for):
    verdict = own_export(subject_for)
    assert verdict.outcome == PASS
    assert sum("the artifact is the run's own export, which decides" in note for note in verdict.notes) == 2


def test_an_own_export_is_undecided_on_too_few_images_and_says_so(subject_for):
    verdict = judge(inspect_artifact(subject_for()), [measurement("whitebox", GRADIENTS, [True] * 40), EQUAL], Budget())
    assert [line.split(":")[0] for line in verdict.undecided] == ["too_few_images"]
    assert sum("own export, which decides from 50 images on" in note for note in verdict.notes) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"lost": 2},
        {"precision": "fp16"},
        {"precision": "int8"},
        {"rebuild": Rebuild(False, ("model.onnx: node 3",), ("model.onnx",), 1.0)},
    ],
    ids=["drop above the budget", "fp16", "int8", "other files"],
)
def test_nothing_else_passes_undecided_as_an_own_export(changes, subject_for):
    assert own_export(subject_for, Budget(allowed_flags=("rebuild_differs",)), **changes).outcome == UNDECIDED


@pytest.mark.parametrize("name", sorted(OTHER_LOGITS))
def test_an_allowed_flag_that_says_other_logits_leaves_the_drop_undecided(name, subject_for):
    verdict = own_export(subject_for, Budget(allowed_flags=(name,)), flags=(Flag(name, "others"),))
    assert (verdict.outcome, verdict.reasons) == (UNDECIDED, ())
    harmless = own_export(subject_for, Budget(allowed_flags=("no_twin",)), flags=(Flag("no_twin", "none"),))
    assert harmless.outcome == PASS


def test_equal_files_here_do_not_decide_for_another_machine(subject_for):
    verdict = own_export(subject_for)
    device = MachineResult("jetson.json", verdict.runtime, verdict.machine, verdict.parity, verdict.modes, ())
    merged = with_outcome(dataclasses.replace(verdict, elsewhere=(device,)), Budget())
    assert merged.outcome == UNDECIDED
    assert all(line.startswith("jetson.json: ") for line in merged.undecided)
