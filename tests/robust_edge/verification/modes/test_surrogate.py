"""Mode surrogate on a linear classifier whose logits and gradients are known."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest

from robust_edge.verification.modes.surrogate import surrogate
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.subject import HostSubject
from robust_edge.verification.twins.lazy import LazyTwin
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.modes.blackbox import blackbox
from robust_edge_runtimes.modes.replay import replay
from robust_edge_runtimes.verdict.flags import FLAGS
from robust_edge_runtimes.verdict.images import DrawnImages, from_golden
from robust_edge_runtimes.verdict.inspection import inspect_artifact
from robust_edge_runtimes.verdict.judge import judge
from robust_edge_runtimes.verdict.measurement import Budget, worst_case

SETTINGS = VerifySettings(seed=0, options={"steps": 5})


@pytest.fixture
def subject_for(Fake, opened, golden, linear):
    """subject_for(function, oracle): a linear artifact and checkpoint, the golden images as they are."""

    def build(function=linear.logits, oracle=linear, **changes):
        model = Fake(opened.manifest, function).open()
        drawn = DrawnImages(golden.clean, golden.clean, golden.labels, np.arange(len(golden.labels)))
        eps = opened.manifest.expected.attack.eps
        images = (lambda start, stop: drawn, len(golden.labels))
        lazy = LazyTwin(opened, golden, model)
        subject = HostSubject(opened, golden, model, eps, *images, linear.logits, twin=lazy, checkpoint=oracle)
        return dataclasses.replace(subject, **changes)

    return build


def not_a_number(linear):
    calls = itertools.count()

    def logits(images):
        answer = linear.logits(images)
        answer[0, 0] = (np.nan, np.inf)[next(calls) % 2]
        return answer

    return logits, linear


def noisy(linear):
    random = np.random.default_rng(0)
    return lambda images: linear.logits(images) + random.normal(0, 0.05, (len(images), 4)).astype(np.float32), linear


def scaled(linear):
    return lambda images: linear.logits(images) * np.float32(1.01), linear


def other_when_alone(linear):
    return lambda images: linear.logits(images) * np.float32(-1 if len(images) == 1 else 1), linear


def blind(linear):
    class Oracle:
        def logits_and_gradient(self, images, labels):
            return linear.logits(images), np.zeros_like(images)

    return linear.logits, Oracle()


RAISING = {
    "batch_dependent": other_when_alone,
    "non_finite": not_a_number,
    "randomised": noisy,
    "not_the_checkpoint": scaled,
    "zero_gradient": blind,
}


@pytest.mark.parametrize("flag", RAISING)
def test_each_flag_fails_the_gate_unless_allowed(flag, subject_for, linear):
    """Other flags may come with it; they are allowed."""

    def verdict(allowed):
        subject = subject_for(*RAISING[flag](linear))
        return judge(inspect_artifact(subject), [surrogate(subject, SETTINGS)], Budget(100, 100, allowed))

    failed = verdict(tuple(name for name in FLAGS if name != flag))
    assert not failed.passed
    assert {reason.split(":")[0] for reason in failed.reasons} == {flag}
    passed = verdict(FLAGS)
    assert passed.passed
    assert any(note.startswith(f"allowed {flag}") for note in passed.notes)
    json.dumps(dataclasses.asdict(failed), allow_nan=False)


def test_both_are_judged_on_the_same_candidates(subject_for):
    result = surrogate(subject_for(), SETTINGS).result(Budget())
    assert result.artifact_robust == result.reference_robust
    assert 0 < result.artifact_robust < result.artifact_clean
    assert result.flags == ()


def test_an_artifact_more_robust_than_its_parent_hides_its_gradients(subject_for, golden):
    """It looks the clean image up, so no small step moves it, while the parent falls."""

    def lookup(images):
        distance = np.abs(images[:, None] - golden.clean[None]).max(axis=(2, 3, 4))
        return golden.clean_logits[distance.argmin(1)]

    subject = subject_for(lookup, eps=0.07)
    measured = surrogate(subject, SETTINGS)
    mode = measured.result(Budget())
    assert mode.artifact_robust == 1.0
    assert mode.reference_robust < 0.9
    assert {flag.name for flag in mode.flags} == {"more_robust_than_parent", "not_the_checkpoint"}
    others = tuple(name for name in FLAGS if name != "more_robust_than_parent")
    verdict = judge(inspect_artifact(subject), [measured], Budget(1, 1, others))
    assert [reason.split(":")[0] for reason in verdict.reasons] == ["more_robust_than_parent"]
    assert judge(inspect_artifact(subject), [measured], Budget(7, 7, FLAGS)).passed


def test_a_forged_bundle_cannot_vouch_for_another_network(subject_for, linear):
    """Its golden logits may agree with the artifact; the checkpoint's own on drawn images do not."""
    flags = surrogate(subject_for(lambda images: 2 * linear.logits(images)), SETTINGS).flags
    assert [flag.name for flag in flags] == ["not_the_checkpoint"] * 5
    for images in ("test images", "attacked test images", "shifted images", "mixtures of two images", "uniform noise"):
        assert sum(f"on the {images} " in flag.detail for flag in flags) == 1
    assert surrogate(subject_for(), SETTINGS).flags == ()


def test_an_artifact_that_knows_an_attack_when_it_sees_one_is_not_the_checkpoint(subject_for, golden, linear):
    """Right on every clean image; other images get the logits of the nearest clean one, which only logits can show."""
    known = {image.tobytes() for image in golden.clean}

    def wary(images):
        logits = linear.logits(images)
        for row, image in zip(logits, images, strict=True):
            if image.tobytes() not in known:
                row[:] = golden.clean_logits[np.abs(golden.clean - image).max(axis=(1, 2, 3)).argmin()]
        return logits

    flags = surrogate(subject_for(wary), SETTINGS).flags
    assert {flag.name for flag in flags} == {"not_the_checkpoint"}
    assert "on the attacked test images" in flags[0].detail


def test_attacking_no_image_is_refused(subject_for, golden):
    nothing = DrawnImages(golden.clean[:0], golden.clean[:0], golden.labels[:0], golden.labels[:0])
    with pytest.raises(InputError, match="no images"):
        surrogate(subject_for(draw=lambda start, stop: nothing), SETTINGS)


def test_a_search_that_beats_gradients_which_lead_nowhere_is_a_flag(subject_for, linear):
    class Away:
        def logits_and_gradient(self, images, labels):
            return linear.logits(images), -linear.gradient(images, labels)

    settings = VerifySettings(seed=3, options={"steps": 5, "queries": 200})
    for oracle, names in ((Away(), {"black_box_beats_white_box"}), (linear, set())):
        subject = subject_for(linear.logits, oracle, eps=0.1)
        verdict = judge(
            inspect_artifact(subject), [surrogate(subject, settings), blackbox(subject, settings)], Budget(10, 10)
        )
        assert {flag.name for flag in verdict.flags} == names
        assert verdict.passed is (not names)


def test_replay_and_the_rest_name_the_same_images_alike(subject_for, golden):
    drawn = from_golden(golden, 30, 5)
    subject = subject_for(draw=lambda start, stop: drawn)
    measured = [replay(subject, SETTINGS), surrogate(subject, SETTINGS)]
    worst = worst_case(measured, Budget())
    held = measured[0].artifact_robust[drawn.ids] & measured[1].artifact_robust
    assert worst.images == 30
    assert worst.artifact_robust == held.mean()


@pytest.mark.parametrize(("changes", "raised"), [({}, True), ({"steps": 1}, False), ({"eps": 0.01}, False)])
def test_stored_images_that_are_left_right_by_a_stronger_attack_than_this_one(changes, raised, subject_for, golden):
    """This mode's own attack breaks what the bundle says that as many steps leave right; a weaker claim may be true."""
    subject = subject_for(eps=0.3, golden=dataclasses.replace(golden, attacked_logits=golden.clean_logits))
    manifest = subject.bundle.manifest
    claimed = dataclasses.replace(manifest.expected.attack, **{"eps": 0.3, "steps": 20, **changes})
    manifest = dataclasses.replace(manifest, expected=dataclasses.replace(manifest.expected, attack=claimed))
    subject = dataclasses.replace(subject, bundle=dataclasses.replace(subject.bundle, manifest=manifest))
    details = {flag.name: flag.detail for flag in surrogate(subject, SETTINGS).flags}
    assert ("false_claim" in details) == raised
    if raised:
        assert "20 steps: it left 60 of 60 stored images right, this machine's own" in details["false_claim"]
