from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from robust_edge_runtimes.core.errors import BundleError, InputError
from robust_edge_runtimes.modes.replay import replay
from robust_edge_runtimes.modes.settings import ModeSettings
from robust_edge_runtimes.verdict.measurement import Budget
from robust_edge_runtimes.verdict.subject import subject_of


def test_replaying_the_checkpoint_itself_loses_nothing(subject_for, golden):
    result = replay(subject_for(), ModeSettings()).result(Budget())
    held = (golden.clean_logits.argmax(1) == golden.labels) & (golden.attacked_logits.argmax(1) == golden.labels)
    assert result.images == len(golden.labels) == 60
    assert result.reference_robust == result.artifact_robust == held.mean()
    assert result.reference_clean == result.artifact_clean == 1.0
    assert 0 < held.mean() < 1
    assert (result.clean_drop.points, result.robust_drop.points) == (0, 0)


def test_robust_means_right_when_clean_and_right_when_attacked(subject_for, golden, linear):
    """An artifact that is wrong on clean images gains nothing by being right on attacked ones."""
    clean = {image.tobytes() for image in golden.clean}
    answers = {image.tobytes(): label for image, label in zip(golden.attacked, golden.labels, strict=True)}

    def contrary(images):
        logits = np.zeros((len(images), 4), np.float32)
        for row, image in zip(logits, images, strict=True):
            if image.tobytes() in clean:
                row[(linear.logits(image[None])[0].argmax() + 1) % 4] = 1
            else:
                row[answers[image.tobytes()]] = 1
        return logits

    result = replay(subject_for(contrary), ModeSettings()).result(Budget())
    assert (result.artifact_clean, result.artifact_robust) == (0, 0)


def test_limit_takes_the_first_images(subject_for, golden, linear):
    subject = subject_for()
    result = replay(subject, ModeSettings(limit=10)).result(Budget())
    held = (linear.logits(golden.attacked[:10]).argmax(1) == golden.labels[:10]).mean()
    assert (result.images, result.reference_robust) == (10, held)
    assert replay(subject, ModeSettings(limit=10**9)).result(Budget()).images == 60


@pytest.mark.parametrize("limit", [0, -3])
def test_checking_no_image_is_refused(subject_for, limit):
    with pytest.raises(InputError, match="checks nothing"):
        replay(subject_for(), ModeSettings(limit=limit))


@pytest.mark.parametrize("batch", [1, 7, 60, 64])
def test_a_fixed_batch_scores_every_image_once(Fake, opened, make_manifest, linear, golden, batch):
    with Fake(make_manifest(linear, golden, batch=batch), linear.logits) as model:
        result = replay(subject_of(opened, model), ModeSettings()).result(Budget())
        assert (result.images, result.clean_drop.points, result.robust_drop.points) == (60, 0, 0)


def test_nan_never_counts_as_right(subject_for):
    def nan_at_the_label(images):
        logits = np.zeros((len(images), 4), np.float32)
        logits[:, 0] = np.nan
        return logits

    result = replay(subject_for(nan_at_the_label), ModeSettings()).result(Budget())
    assert (result.artifact_clean, result.artifact_robust) == (0, 0)


def test_attack_images_outside_the_ball_that_the_manifest_names_are_refused(subject_for, golden):
    farther = dataclasses.replace(golden, attacked=np.clip(golden.attacked + 0.5, 0, 1).astype(np.float32))
    with pytest.raises(BundleError, match="moves"):
        replay(subject_for(golden=farther), ModeSettings())


def test_stored_logits_that_are_not_the_checkpoints_are_forged(subject_for, linear):
    assert replay(subject_for(reference=linear.logits), ModeSettings()).flags == ()
    forged = replay(subject_for(reference=lambda images: 2 * linear.logits(images)), ModeSettings())
    assert [flag.name for flag in forged.flags] == ["forged_answers"]


def test_forged_logits_do_not_lower_the_accuracy_of_a_checkpoint_that_is_at_hand(subject_for, golden, linear):
    forged = dataclasses.replace(golden, clean_logits=-golden.clean_logits, attacked_logits=-golden.attacked_logits)
    result = replay(subject_for(golden=forged, reference=linear.logits), ModeSettings()).result(Budget())
    held = (golden.clean_logits.argmax(1) == golden.labels) & (golden.attacked_logits.argmax(1) == golden.labels)
    assert (result.reference_clean, result.reference_robust) == (1.0, held.mean())
