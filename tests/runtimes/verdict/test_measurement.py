from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.verdict.measurement import (
    GRADIENTS,
    LOGITS,
    STORED,
    Budget,
    Measurement,
    Rebuild,
    parity_of,
    worst_case,
)

ATTACK = AttackSpec("pgd", 0.05, 5, 0.02, 0)
WORKS_WITH = {"replay": STORED, "surrogate": GRADIENTS, "whitebox": GRADIENTS, "blackbox": LOGITS}


def measurement(mode, ids, artifact, reference=None, **changes):
    artifact = np.array(artifact, bool)
    reference = np.ones(len(ids), bool) if reference is None else np.array(reference, bool)
    clean = np.ones(len(ids), bool)
    return Measurement(ATTACK, np.array(ids), clean, clean, reference, artifact, WORKS_WITH[mode], mode=mode, **changes)


def test_an_image_counts_only_if_it_was_right_in_every_mode():
    measurements = [
        measurement("replay", [0, 1, 2, 3, 4, 5], [1, 1, 0, 1, 1, 0]),
        measurement("surrogate", [5, 3, 2, 9], [1, 0, 1, 1], [1, 1, 0, 1]),
        measurement("blackbox", [9, 2, 3, 5], [1, 1, 1, 1], [0, 1, 1, 1]),
    ]
    for order in itertools.permutations(measurements):
        worst = worst_case(order, Budget())
        assert worst.images == 4  # 2, 3, 5, 9: what every mode that draws has attacked
        assert worst.artifact_robust == 1 / 4  # 2 and 5 fall to replay, 3 to surrogate
        assert worst.reference_robust == 2 / 4  # 2 falls to surrogate, 9 to blackbox
        assert worst.artifact_clean == 1


def test_worst_case_by_brute_force():
    random = np.random.default_rng(0)
    for _ in range(30):
        measurements = [
            measurement(mode, random.permutation(12)[:8], random.uniform(size=8) < 0.7, random.uniform(size=8) < 0.7)
            for mode in ("replay", "surrogate", "whitebox")
        ]
        common = set(measurements[1].ids) & set(measurements[2].ids)
        right = {
            name: {i for i in common if all(getattr(t, name)[list(t.ids).index(i)] for t in measurements if i in t.ids)}
            for name in ("artifact_robust", "reference_robust")
        }
        worst = worst_case(measurements, Budget())
        assert worst.images == len(common)
        assert worst.artifact_robust == pytest.approx(len(right["artifact_robust"]) / len(common))
        lost = len(right["reference_robust"] - right["artifact_robust"])
        gained = len(right["artifact_robust"] - right["reference_robust"])
        assert worst.robust_drop.points == pytest.approx(100 * (lost - gained) / len(common))


def test_there_is_no_worst_case_of_one_mode_or_of_stored_answers():
    one, other = measurement("replay", [0, 1], [1, 1]), measurement("blackbox", [0, 1], [1, 0], paired=False)
    assert worst_case([one], Budget()) is None
    assert worst_case([one, other], Budget()) is None
    assert worst_case([measurement("surrogate", [0], [1]), measurement("whitebox", [1], [1])], Budget()) is None


@pytest.mark.parametrize(("mode", "flagged"), [("replay", False), ("surrogate", True), ("whitebox", True)])
def test_holding_images_that_were_chosen_against_another_is_no_hidden_gradient(mode, flagged):
    """As for an honest int8 artifact: PGD ran against the checkpoint, and rounding undoes what barely succeeded."""
    gained = measurement(mode, range(400), [True] * 380 + [False] * 20, [True] * 360 + [False] * 40)
    assert ("more_robust_than_parent" in {flag.name for flag in gained.result(Budget()).flags}) is flagged


@pytest.fixture
def fake(Fake, opened, linear):
    return lambda function=linear.logits: Fake(opened.manifest, function).open()


def test_parity_is_the_largest_error_over_the_largest_distance_from_the_mean(fake, golden, linear):
    shift = np.zeros((1, 4), np.float32)
    shift[0, 2] = 0.25
    parity = parity_of(fake(lambda images: linear.logits(images) + shift), golden)
    logits = np.concatenate([golden.clean_logits, golden.attacked_logits])
    largest = np.abs(logits - logits.mean(axis=1, keepdims=True)).max()
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
    with pytest.raises(InputError, match=rf"budget\.{name} must be 0 to 100 percentage points; it is {value}"):
        Budget(**{name: value})


def test_an_unknown_flag_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="unknown flag 'randomized'; did you mean 'randomised'"):
        Budget(allowed_flags=("randomized",))


@pytest.mark.parametrize("batch", [1, 7, 60, 64])
def test_a_fixed_batch_compares_every_image_once(Fake, make_manifest, linear, golden, batch):
    with Fake(make_manifest(linear, golden, batch=batch), linear.logits) as model:
        assert parity_of(model, golden).argmax_agreement == 1


def test_what_a_rebuild_says_of_its_differences():
    assert Rebuild(True, (), ("model.onnx",), 1.0, ("torch 2, here 3",)).flags == ()
    rebuild = Rebuild(False, ("a", "b", "c", "d", "e"), ("model.onnx",), 1.0, ("torch 2, here 3",))
    (flag,) = rebuild.flags
    assert flag.name == "rebuild_differs"
    assert flag.detail.startswith("a; b; c; and 2 more (exported with other versions: torch 2, here 3)")
    assert "the versions are what the bundle claims: export again with those here" in flag.detail
    assert "--allow" not in flag.detail  # which the bundle, whose field this is, would advise
    (flag,) = dataclasses.replace(rebuild, versions=()).flags
    assert flag.detail == "a; b; c; and 2 more"
