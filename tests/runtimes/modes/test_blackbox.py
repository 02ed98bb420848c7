from __future__ import annotations

import numpy as np
import pytest

from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.modes.blackbox import blackbox
from robust_edge_runtimes.modes.settings import ModeSettings
from robust_edge_runtimes.verdict.images import DrawnImages
from robust_edge_runtimes.verdict.measurement import Budget

SETTINGS = ModeSettings(seed=3, options={"queries": 60})


def test_square_on_the_checkpoint_itself_loses_nothing(subject_for, linear):
    result = blackbox(subject_for(reference=linear.logits), SETTINGS).result(Budget())
    assert result.artifact_robust == result.reference_robust
    assert 0 < result.artifact_robust < result.artifact_clean
    assert result.paired
    assert result.robust_drop.points == 0


def test_each_network_scores_what_was_found_against_the_other(subject_for, golden, linear):
    """The artifact gives a search nothing to follow, and falls to what was found against the checkpoint."""

    def hidden(images):
        return np.sign(linear.logits(images) - linear.logits(images).max(1, keepdims=True))

    paired = blackbox(subject_for(hidden, reference=linear.logits), SETTINGS).result(Budget())
    assert paired.artifact_robust == paired.reference_robust < 1
    alone = blackbox(subject_for(hidden), SETTINGS).result(Budget())
    assert alone.artifact_robust > paired.artifact_robust
    held = (golden.clean_logits.argmax(1) == golden.labels) & (golden.attacked_logits.argmax(1) == golden.labels)
    assert alone.reference_robust == held.mean()
    assert not alone.paired


def test_progress_goes_once_through_the_attacks_on_both_networks(subject_for, linear):
    seen = []
    blackbox(subject_for(reference=linear.logits), SETTINGS, lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert {(60, 120), (120, 120)} <= set(seen)
    assert {total for _, total in seen} == {120}


def test_attacking_no_image_is_refused(subject_for, golden):
    nothing = DrawnImages(golden.clean[:0], golden.clean[:0], golden.labels[:0], golden.labels[:0])
    with pytest.raises(InputError, match="no images"):
        blackbox(subject_for(draw=lambda start, stop: nothing), SETTINGS)
