from __future__ import annotations

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest

from robust_edge_runtimes.core.errors import BundleError, InputError
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.verdict.fresh import Fresh
from robust_edge_runtimes.verdict.outputs import repeat_flags
from robust_edge_runtimes.verdict.verify import (
    FLAGS,
    MIN_IMAGES,
    Budget,
    Drop,
    blackbox,
    judge,
    paired_drop,
    parity_of,
    replay,
    surrogate,
)

ATTACK = AttackSpec("pgd", 0.05, 5, 0.02, 0)
WIDE = Budget(100, 100)


def fresh(golden, count=None):
    """The golden images themselves, for tests that know every answer."""
    clean = golden.clean[:count]
    return Fresh(clean, clean, golden.labels[:count], np.arange(len(clean)))


def outcomes(both, lost, gained, neither):
    reference = np.array([True] * (both + lost) + [False] * (gained + neither))
    artifact = np.array([True] * both + [False] * lost + [True] * gained + [False] * neither)
    return reference, artifact


@pytest.mark.parametrize(
    ("cells", "points", "low", "high"),
    [
        # by hand: centre (10.5 - 2.5) / 102 = 7.8431 %, half 1.959964 * sqrt(13 - 64 / 102) / 102 = 6.7589 %
        ((80, 10, 2, 8), 8.0, 1.0842, 14.6020),
        # by hand: centre 0, half 1.959964 * sqrt(1) / 62 = 3.1612 %
        ((60, 0, 0, 0), 0.0, -3.1612, 3.1612),
        # by hand: centre (0.5 - 20.5) / 52 = -38.4615 %, half 1.959964 * sqrt(21 - 400 / 52) / 52 = 13.7508 %
        ((10, 0, 20, 20), -40.0, -52.2123, -24.7108),
    ],
)
def test_the_interval_is_agresti_and_mins(cells, points, low, high):
    drop = paired_drop(*outcomes(*cells), budget=1.0)
    assert drop.points == pytest.approx(points)
    assert drop.low == pytest.approx(low, abs=1e-3)
    assert drop.high == pytest.approx(high, abs=1e-3)


def test_order_of_the_images_does_not_matter_and_sides_mirror():
    reference, artifact = outcomes(30, 6, 2, 12)
    shuffled = np.random.default_rng(0).permutation(50)
    forward = paired_drop(reference, artifact, 1.0)
    assert paired_drop(reference[shuffled], artifact[shuffled], 1.0) == forward
    backward = paired_drop(artifact, reference, 1.0)
    assert (backward.points, backward.low, backward.high) == pytest.approx(
        (-forward.points, -forward.high, -forward.low)
    )


@pytest.mark.parametrize(
    ("n", "lost", "gained"), [(60, 0.05, 0.01), (200, 0.03, 0.03), (500, 0.01, 0.0), (100, 0.2, 0.1)]
)
def test_the_interval_covers_the_truth_as_often_as_it_says(n, lost, gained):
    random = np.random.default_rng(0)
    covered, trials = 0, 3000
    for _ in range(trials):
        draw = random.uniform(size=n)
        reference = draw >= gained
        artifact = (draw < gained) | (draw >= gained + lost)
        drop = paired_drop(reference, artifact, 1.0)
        covered += drop.low <= 100 * (lost - gained) <= drop.high
    # 95 % is nominal; 0.94 leaves room for the discreteness of small counts and 0.4 % of sampling error
    assert covered / trials >= 0.94


def test_a_faithful_artifact_rarely_fails_by_chance():
    """Budget 1 point, true loss 1 point: the gate may reject at most one in forty."""
    random, rejected = np.random.default_rng(1), 0
    for _ in range(2000):
        draw = random.uniform(size=300)
        rejected += paired_drop(draw >= 0.02, (draw < 0.02) | (draw >= 0.05), 1.0).exceeded
    assert rejected / 2000 <= 0.03


@pytest.mark.parametrize(
    ("drop", "exceeded", "undecided"),
    [
        (Drop(3.0, 1.1, 5.0, 1.0), True, False),
        (Drop(3.0, 1.0, 5.0, 1.0), False, True),
        (Drop(0.0, -1.0, 1.01, 1.0), False, True),
        (Drop(0.0, -1.0, 1.0, 1.0), False, False),
        (Drop(-3.0, -5.0, -1.0, 1.0), False, False),
    ],
)
def test_where_the_gate_stands(drop, exceeded, undecided):
    assert (drop.exceeded, drop.undecided) == (exceeded, undecided)


@pytest.fixture
def fake(Fake, opened, linear):
    def build(function=linear.logits, manifest=opened.manifest):
        return Fake(manifest, function).open()

    return build


def test_replaying_the_checkpoint_itself_loses_nothing(fake, golden, opened):
    model = fake()
    result = replay(model, golden, ATTACK).result(Budget())
    held = (golden.clean_logits.argmax(1) == golden.labels) & (golden.attacked_logits.argmax(1) == golden.labels)
    assert result.images == len(golden.labels) == 60
    assert result.reference_robust == result.artifact_robust == held.mean()
    assert result.reference_clean == result.artifact_clean == 1.0
    assert 0 < held.mean() < 1
    assert (result.clean_drop.points, result.robust_drop.points) == (0, 0)
    verdict = judge(opened, model, [replay(model, golden, ATTACK)], Budget())
    assert verdict.modes == (dataclasses.replace(result, seconds=verdict.modes[0].seconds),)
    assert verdict.passed
    assert (verdict.reasons, verdict.flags) == ((), ())
    assert verdict.artifact_sha256 == opened.manifest.artifact.sha256
    assert verdict.checkpoint_sha256 == opened.manifest.source.checkpoint_sha256
    assert verdict.runtime.backend == "fake"


def test_robust_means_right_when_clean_and_right_when_attacked(fake, golden, linear):
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

    result = replay(fake(contrary), golden, ATTACK).result(Budget())
    assert (result.artifact_clean, result.artifact_robust) == (0, 0)


def test_limit_takes_the_first_images(fake, golden, linear):
    model = fake()
    result = replay(model, golden, ATTACK, limit=10).result(Budget())
    held = (linear.logits(golden.attacked[:10]).argmax(1) == golden.labels[:10]).mean()
    assert (result.images, result.reference_robust) == (10, held)
    assert replay(model, golden, ATTACK, limit=10**9).result(Budget()).images == 60


def test_checking_no_image_is_refused(fake, golden, linear):
    for limit in (0, -3):
        with pytest.raises(InputError, match="checks nothing"):
            replay(fake(), golden, ATTACK, limit=limit)
    with pytest.raises(InputError, match="no images"):
        surrogate(fake(), linear, fresh(golden, 0), ATTACK)


def test_a_fixed_batch_scores_every_image_once(Fake, make_manifest, linear, golden):
    for batch in (1, 7, 60, 64):
        with Fake(make_manifest(linear, golden, batch=batch), linear.logits) as model:
            assert parity_of(model, golden).argmax_agreement == 1
            result = replay(model, golden, ATTACK).result(Budget())
            assert (result.images, result.clean_drop.points, result.robust_drop.points) == (60, 0, 0)


def wrong(linear):
    return lambda images: np.roll(linear.logits(images), 1, axis=1)


def test_another_network_fails_and_says_by_how_much(fake, golden, linear, opened):
    model = fake(wrong(linear))
    verdict = judge(opened, model, [replay(model, golden, ATTACK)], Budget())
    assert not verdict.passed
    names = [reason.split(":")[0] for reason in verdict.reasons]
    assert names == ["clean_drop", "robust_drop", "not_the_checkpoint"]
    assert verdict.parity.argmax_agreement < 1


def test_a_drop_within_the_budget_passes(fake, golden, linear, opened):
    model = fake(wrong(linear))
    budget = Budget(100, 100, ("not_the_checkpoint",))
    assert judge(opened, model, [replay(model, golden, ATTACK)], budget).passed


def test_what_few_images_cannot_rule_out_is_a_note(fake, golden, opened):
    model = fake()
    for budget, notes in ((Budget(1, 1), 2), (Budget(1, 5), 1), (Budget(5, 5), 0)):
        verdict = judge(opened, model, [replay(model, golden, ATTACK)], budget)
        assert verdict.passed
        assert len([note for note in verdict.notes if "cannot rule out" in note]) == notes


def test_too_few_images_fail(fake, golden, opened):
    model = fake()
    for limit, passed in ((MIN_IMAGES - 1, False), (MIN_IMAGES, True)):
        verdict = judge(opened, model, [replay(model, golden, ATTACK, limit)], WIDE)
        assert verdict.passed is passed
        assert any("too_few_images" in reason for reason in verdict.reasons) is not passed


def test_nothing_checked_fails(fake, opened):
    verdict = judge(opened, fake(), [], WIDE)
    assert not verdict.passed
    assert verdict.reasons == ("nothing_checked: no mode was run",)


def test_one_bad_mode_among_good_ones_fails(fake, golden, linear, opened):
    good = replay(fake(), golden, ATTACK)
    bad = replay(fake(wrong(linear)), golden, ATTACK)
    for modes in itertools.permutations([good, bad]):
        assert not judge(opened, fake(), modes, Budget()).passed


# A flag, and an artifact, an oracle that raise it; other flags may come with it.


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


def sometimes_nan(linear):
    """Finite at the first look and not at the second."""
    calls = itertools.count()
    return lambda images: linear.logits(images) * np.float32(np.nan if next(calls) % 2 else 1), linear


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
def test_each_flag_fails_the_gate_unless_allowed(flag, fake, golden, linear, opened):
    function, oracle = RAISING[flag](linear)

    def verdict(allowed):
        budget = Budget(100, 100, allowed)
        model = fake(function)
        return judge(opened, model, [surrogate(model, oracle, fresh(golden), ATTACK)], budget)

    others = tuple(name for name in FLAGS if name != flag)
    failed = verdict(others)
    assert not failed.passed
    assert [reason.split(":")[0] for reason in failed.reasons] == [flag]
    passed = verdict(FLAGS)
    assert passed.passed
    assert any(note.startswith(f"allowed {flag}") for note in passed.notes)
    json.dumps(dataclasses.asdict(failed), allow_nan=False)


def test_logits_that_turn_to_nan_are_randomised(fake, opened, linear):
    model = fake(sometimes_nan(linear)[0])
    budget = Budget(100, 100)
    names = {flag.name for flag in judge(opened, model, [], budget).flags}
    assert "randomised" in names


def test_an_artifact_more_robust_than_its_parent_hides_its_gradients(fake, golden, linear, opened):
    """It looks the clean image up, so no small step moves it, while the parent falls."""

    def lookup(images):
        distance = np.abs(images[:, None] - golden.clean[None]).max(axis=(2, 3, 4))
        return golden.clean_logits[distance.argmin(1)]

    strong = dataclasses.replace(ATTACK, eps=0.07, step_size=0.05)
    model = fake(lookup)
    trial = surrogate(model, linear, fresh(golden), strong)
    mode = trial.result(Budget())
    assert mode.artifact_robust == 1.0
    assert mode.reference_robust < 0.9
    assert [flag.name for flag in mode.flags] == ["more_robust_than_parent"]
    others = tuple(name for name in FLAGS if name != "more_robust_than_parent")
    verdict = judge(opened, model, [trial], Budget(1, 1, others))
    assert [reason.split(":")[0] for reason in verdict.reasons] == ["more_robust_than_parent"]
    assert judge(opened, model, [trial], Budget(1, 1, FLAGS)).passed


def test_surrogate_judges_both_on_the_same_candidates(fake, golden, linear):
    result = surrogate(fake(), linear, fresh(golden), ATTACK).result(Budget())
    assert result.artifact_robust == result.reference_robust
    assert 0 < result.artifact_robust < result.artifact_clean
    assert result.flags == ()


def test_nan_never_counts_as_right(fake, golden):
    def nan_at_the_label(images):
        logits = np.zeros((len(images), 4), np.float32)
        logits[:, 0] = np.nan
        return logits

    result = replay(fake(nan_at_the_label), golden, ATTACK).result(Budget())
    assert (result.artifact_clean, result.artifact_robust) == (0, 0)


def test_parity_is_the_largest_error_over_the_largest_logit(fake, golden, linear):
    shift = np.zeros((1, 4), np.float32)
    shift[0, 2] = 0.25
    parity = parity_of(fake(lambda images: linear.logits(images) + shift), golden)
    largest = max(np.abs(golden.clean_logits).max(), np.abs(golden.attacked_logits).max())
    assert parity.max_logit_error == pytest.approx(0.25 / largest, rel=1e-4)
    assert parity.tolerance == golden.tolerance
    moved = [linear.logits(x) + shift for x in (golden.clean, golden.attacked)]
    same = [
        m.argmax(1) == e.argmax(1) for m, e in zip(moved, (golden.clean_logits, golden.attacked_logits), strict=True)
    ]
    assert parity.argmax_agreement == np.concatenate(same).mean()


@pytest.mark.parametrize("bad", [np.nan, np.inf, np.float32(3e38)])
def test_parity_of_wild_logits_is_a_huge_finite_number_without_a_warning(fake, golden, linear, bad):
    parity = parity_of(fake(lambda images: linear.logits(images) * 0 + np.float32(bad)), golden)
    assert parity.max_logit_error > 1e30
    assert math.isfinite(parity.max_logit_error)


@pytest.mark.parametrize("value", [-0.1, 100.1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["clean", "robust"])
def test_budgets_outside_0_to_100_points_are_refused(name, value):
    with pytest.raises(InputError, match=f"--max-{name}-drop"):
        Budget(**{name: value})


def test_an_unknown_flag_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="unknown flag 'randomized'; did you mean 'randomised'"):
        Budget(allowed_flags=("randomized",))


def test_attack_images_outside_the_ball_that_the_manifest_names_are_refused(fake, golden, linear):
    farther = dataclasses.replace(golden, attacked=np.clip(golden.attacked + 0.5, 0, 1).astype(np.float32))
    with pytest.raises(BundleError, match="moves"):
        replay(fake(linear.logits), farther, ATTACK)


def test_a_forged_bundle_cannot_vouch_for_another_network(fake, golden, linear):
    """Its golden logits may agree with the artifact; the checkpoint's own on fresh images do not."""
    other = fake(lambda images: 2 * linear.logits(images))
    plain = surrogate(other, linear, fresh(golden), ATTACK)
    compared = surrogate(other, linear, fresh(golden), ATTACK, tolerance=1e-3)
    same = surrogate(fake(), linear, fresh(golden), ATTACK, tolerance=1e-3)
    assert [flag.name for flag in compared.flags] == ["not_the_checkpoint"] * 2
    assert plain.flags == same.flags == ()


def test_an_artifact_that_knows_an_attack_when_it_sees_one_is_not_the_checkpoint(fake, golden, linear):
    """Faithful to every clean image, it answers others as it does the nearest: nothing but their logits tells."""
    known = {image.tobytes() for image in golden.clean}

    def wary(images):
        logits = linear.logits(images)
        for row, image in zip(logits, images, strict=True):
            if image.tobytes() not in known:
                row[:] = golden.clean_logits[np.abs(golden.clean - image).max(axis=(1, 2, 3)).argmin()]
        return logits

    trial = surrogate(fake(wary), linear, fresh(golden), ATTACK, tolerance=1e-3)
    assert [flag.name for flag in trial.flags] == ["not_the_checkpoint"]
    assert "on the attacked test images" in trial.flags[0].detail


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_a_rounding_neighbour_in_another_batch_is_no_flag(linear, golden, share):
    """Kernels for one image add up in another order, and 8 bits may then round the other way on a few images."""
    neighbours = {image.tobytes() for image in golden.clean[: int(20 * share)]}

    def score(images):
        logits = linear.logits(images)
        if len(images) == 1 and images[0].tobytes() in neighbours:
            logits = logits + np.float32(0.1 * np.abs(golden.clean_logits).max())
        return logits

    images = golden.clean[:20]
    names = [flag.name for flag in repeat_flags(score, images, score(images))]
    assert names == (["batch_dependent"] if share > 0.1 else [])


def test_what_several_modes_saw_is_one_reason(fake, golden, linear, opened):
    model = fake(other_when_alone(linear)[0])
    trials = [surrogate(model, linear, fresh(golden), ATTACK), blackbox(model, fresh(golden), ATTACK, linear.logits)]
    assert [flag.name for trial in trials for flag in trial.flags] == ["batch_dependent"] * 2
    names = [reason.split(":")[0] for reason in judge(opened, model, trials, Budget(100, 100)).reasons]
    assert names == ["batch_dependent"]


@pytest.mark.parametrize(("strays", "flagged"), [(0.0, True), (0.1, True), (0.25, False)])
def test_only_a_share_of_the_images_may_stray(fake, golden, linear, strays, flagged):
    """One image in five is far off."""

    def off_on_some(images):
        logits = linear.logits(images).copy()
        logits[::5] += 1
        return logits

    found = surrogate(fake(off_on_some), linear, fresh(golden), ATTACK, tolerance=1e-3, strays=strays)
    assert ("not_the_checkpoint" in {flag.name for flag in found.flags}) == flagged
