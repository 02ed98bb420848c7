from __future__ import annotations

import itertools

import numpy as np
import pytest

from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.verdict.fresh import NOISE, from_golden, stored_index
from robust_edge_runtimes.verdict.verdict import Budget, Trial, worst_case
from robust_edge_runtimes.verdict.verify import blackbox, judge, replay, surrogate

ATTACK = AttackSpec("pgd", 0.05, 5, 0.02, 0)
SQUARE = AttackSpec("square", 0.05, 60, 0.0, 3)


def trial(mode, ids, artifact, reference=None, **changes):
    artifact = np.array(artifact, bool)
    reference = np.ones(len(ids), bool) if reference is None else np.array(reference, bool)
    clean = np.ones(len(ids), bool)
    return Trial(mode, ATTACK, np.array(ids), clean, clean, reference, artifact, **changes)


def test_an_image_counts_only_if_it_was_right_in_every_mode():
    trials = [
        trial("replay", [0, 1, 2, 3, 4, 5], [1, 1, 0, 1, 1, 0]),
        trial("surrogate", [5, 3, 2, 9], [1, 0, 1, 1], [1, 1, 0, 1]),
        trial("blackbox", [9, 2, 3, 5], [1, 1, 1, 1], [0, 1, 1, 1]),
    ]
    for order in itertools.permutations(trials):
        worst = worst_case(order, Budget())
        assert worst.images == 4  # 2, 3, 5, 9: what every mode that draws has attacked
        assert worst.artifact_robust == 1 / 4  # 2 and 5 fall to replay, 3 to surrogate
        assert worst.reference_robust == 2 / 4  # 2 falls to surrogate, 9 to blackbox
        assert worst.artifact_clean == 1


def test_worst_case_by_brute_force():
    random = np.random.default_rng(0)
    for _ in range(30):
        trials = [
            trial(mode, random.permutation(12)[:8], random.uniform(size=8) < 0.7, random.uniform(size=8) < 0.7)
            for mode in ("replay", "surrogate", "whitebox")
        ]
        common = set(trials[1].ids) & set(trials[2].ids)
        right = {
            name: {i for i in common if all(getattr(t, name)[list(t.ids).index(i)] for t in trials if i in t.ids)}
            for name in ("artifact_robust", "reference_robust")
        }
        worst = worst_case(trials, Budget())
        assert worst.images == len(common)
        assert worst.artifact_robust == pytest.approx(len(right["artifact_robust"]) / len(common))
        lost = len(right["reference_robust"] - right["artifact_robust"])
        gained = len(right["artifact_robust"] - right["reference_robust"])
        assert worst.robust_drop.points == pytest.approx(100 * (lost - gained) / len(common))


def test_there_is_no_worst_case_of_one_mode_or_of_stored_answers():
    one, other = trial("replay", [0, 1], [1, 1]), trial("blackbox", [0, 1], [1, 0], paired=False)
    assert worst_case([one], Budget()) is None
    assert worst_case([one, other], Budget()) is None
    assert worst_case([trial("surrogate", [0], [1]), trial("whitebox", [1], [1])], Budget()) is None


@pytest.mark.parametrize(("mode", "flagged"), [("replay", False), ("surrogate", True), ("whitebox", True)])
def test_holding_images_that_were_chosen_against_another_is_no_hidden_gradient(mode, flagged):
    """Seen on an honest int8 artifact: PGD was run against its checkpoint, and rounding dodges what just reached."""
    gained = trial(mode, range(400), [True] * 380 + [False] * 20, [True] * 360 + [False] * 40)
    assert ("more_robust_than_parent" in {flag.name for flag in gained.result(Budget()).flags}) is flagged


def test_fresh_copies_are_new_near_and_the_seeds(golden):
    fresh = from_golden(golden, None, 1)
    assert sorted(fresh.ids) == list(range(len(golden.labels)))
    assert np.array_equal(fresh.images, golden.clean[fresh.ids])
    assert np.array_equal(fresh.labels, golden.labels[fresh.ids])
    assert np.abs(fresh.probes - fresh.images).max() <= NOISE + 1e-6
    assert fresh.probes.min() >= 0
    assert fresh.probes.max() <= 1
    known = stored_index(golden)
    assert [known[image.tobytes()] for image in fresh.images] == fresh.ids.tolist()
    assert not any(image.tobytes() in known for image in fresh.probes)
    same, other = from_golden(golden, 20, 1), from_golden(golden, 20, 2)
    assert np.array_equal(same.probes, from_golden(golden, 20, 1).probes)
    assert set(same.ids) != set(other.ids)
    with pytest.raises(InputError, match="checks nothing"):
        from_golden(golden, 0, 1)


@pytest.fixture
def fake(Fake, opened, linear):
    return lambda function=linear.logits: Fake(opened.manifest, function).open()


def test_square_on_the_checkpoint_itself_loses_nothing(fake, golden, linear):
    result = blackbox(fake(), from_golden(golden, None, 1), SQUARE, linear.logits).result(Budget())
    assert result.artifact_robust == result.reference_robust
    assert 0 < result.artifact_robust < result.artifact_clean
    assert result.paired
    assert result.robust_drop.points == 0


def test_each_network_scores_what_was_found_against_the_other(fake, golden, linear):
    """The artifact shows nothing that a search could climb, and falls to what was found against the checkpoint."""

    def hidden(images):
        return np.sign(linear.logits(images) - linear.logits(images).max(1, keepdims=True))

    fresh = from_golden(golden, None, 1)
    paired = blackbox(fake(hidden), fresh, SQUARE, linear.logits).result(Budget())
    assert paired.artifact_robust == paired.reference_robust < 1
    alone = blackbox(fake(hidden), fresh, SQUARE, golden).result(Budget())
    assert alone.artifact_robust > paired.artifact_robust
    held = (golden.clean_logits.argmax(1) == golden.labels) & (golden.attacked_logits.argmax(1) == golden.labels)
    assert alone.reference_robust == held.mean()
    assert not alone.paired


def test_a_black_box_that_beats_the_white_boxes_is_a_flag(fake, golden, linear, opened):
    """An oracle that looks away: the gradients lead nowhere, the search gets through."""

    class Astray:
        def logits_and_gradient(self, images, labels):
            return linear.logits(images), -linear.gradient(images, labels)

    fresh, model = from_golden(golden, None, 1), fake()
    strong = AttackSpec("square", 0.1, 200, 0.0, 3)
    blind = surrogate(model, Astray(), fresh, AttackSpec("pgd", 0.1, 5, 0.04, 0))
    black = blackbox(model, fresh, strong, linear.logits)
    verdict = judge(opened, model, [blind, black], Budget())
    assert "black_box_beats_white_box" in {flag.name for flag in verdict.flags}
    assert not verdict.passed
    honest = surrogate(model, linear, fresh, AttackSpec("pgd", 0.1, 5, 0.04, 0))
    assert judge(opened, model, [honest, black], Budget()).flags == ()


def test_the_worst_case_can_fail_where_no_mode_does(fake, golden, linear, opened):
    n = 400
    ids = np.arange(n)
    spread = [np.ones(n, bool) for _ in range(2)]
    spread[0][:6] = spread[1][6:12] = False  # 1.5 points each: within chance; 3 points together: not
    trials = [trial(mode, ids, right) for mode, right in zip(("surrogate", "whitebox"), spread, strict=True)]
    model = fake()
    for one in trials:
        assert judge(opened, model, [one], Budget()).passed
    verdict = judge(opened, model, trials, Budget())
    assert [reason.partition(":")[0] for reason in verdict.reasons] == ["robust_drop"]
    assert "over all modes (surrogate, whitebox)" in verdict.reasons[0]


def test_replay_and_the_rest_name_the_same_images_alike(fake, golden, linear):
    fresh = from_golden(golden, 30, 5)
    trials = [replay(fake(), golden, ATTACK), surrogate(fake(), linear, fresh, ATTACK)]
    worst = worst_case(trials, Budget())
    held = trials[0].artifact_robust[fresh.ids] & trials[1].artifact_robust
    assert worst.images == 30
    assert worst.artifact_robust == held.mean()
