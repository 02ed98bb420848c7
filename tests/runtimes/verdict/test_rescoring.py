"""Final candidates scored again: an artifact whose logits depend on the batch, on threads or on chance."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from robust_edge_runtimes.core.batches import filled
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.core.runtime import BaseRuntime, RuntimeInfo
from robust_edge_runtimes.scoring import BATCH, repeats
from robust_edge_runtimes.verdict.inspection import inspect_artifact
from robust_edge_runtimes.verdict.measurement import GRADIENTS, Candidates, Measurement
from robust_edge_runtimes.verdict.rescoring import BATCH_SIZES, SINGLE_CANDIDATES, _other_size, scored_again

ATTACK = AttackSpec("pgd", 0.05, 5, 0.02, 0)


def measurement(labels, *images, robust=None):
    everyone = np.ones(len(labels), bool)
    robust = everyone if robust is None else robust
    arrays = (np.arange(len(labels)), everyone, everyone, everyone, robust)
    return Measurement(ATTACK, *arrays, GRADIENTS, candidates=Candidates(labels, images), mode="whitebox")


def wrong(logits):
    return np.roll(logits, 1, axis=1)


class Threaded(BaseRuntime):
    """Answers by the linear classifier, and wrongly with more than one thread, or with one."""

    uses_threads = True
    linear = None
    wrong_with = 2

    def open_impl(self):
        return RuntimeInfo("fake", "1", "cpu", "fake", self.threads)

    def infer_impl(self, images):
        logits = self.linear.logits(images)
        return wrong(logits) if self.threads == self.wrong_with else logits

    def close_impl(self):
        pass


@pytest.fixture
def again(subject_for, golden):
    """again(function, *images, **changes) -> what is left of a measurement in which every golden image was robust."""

    def score(function, *images, robust=None, seed=0, **changes):
        found = measurement(golden.labels, *(images or (golden.clean,)), robust=robust)
        return scored_again(subject_for(function, **changes), found, seed)

    return score


def names(measured):
    return [flag.name for flag in measured.flags]


def test_the_same_answers_every_time_change_nothing(again, linear):
    measured = again(linear.logits)
    assert measured.artifact_robust.all()
    assert measured.flags == ()
    assert measured.candidates is None


def test_without_candidates_there_is_nothing_to_score(subject_for, golden):
    def never(images):
        raise AssertionError("scored")

    found = dataclasses.replace(measurement(golden.labels), candidates=None)
    assert scored_again(subject_for(never), found, 0) is found


def test_an_artifact_that_is_wrong_on_one_image_alone(again, linear, golden):
    known = {image.tobytes() for image in golden.clean[:7]}

    def function(images):
        logits = linear.logits(images)
        return wrong(logits) if len(images) == 1 and images[0].tobytes() in known else logits

    measured = again(function)
    assert (~measured.artifact_robust).nonzero()[0].tolist() == list(range(7))
    assert names(measured) == ["batch_dependent"]
    assert "final candidates of mode whitebox" in measured.flags[0].detail
    assert "alone" in measured.flags[0].detail


@pytest.mark.parametrize(("exact", "expected"), [(False, []), (True, ["batch_dependent"])])
def test_one_candidate_that_deviates_alone(exact, expected, Fake, subject_for, opened, golden, linear):
    """Eight bits may round to a neighbour on few images; an engine of integers on none."""
    artifact = dataclasses.replace(opened.manifest.artifact, precision="int8")
    bundle = dataclasses.replace(opened, manifest=dataclasses.replace(opened.manifest, artifact=artifact))

    def function(images):
        known = len(images) == 1 and np.array_equal(images[0], golden.clean[3])
        return linear.logits(images) * np.float32(1.1 if known else 1)

    kind = type("Kind", (Fake,), {"exact": exact})
    subject = subject_for(model=kind(bundle.manifest, function).open(), bundle=bundle)
    assert names(scored_again(subject, measurement(golden.labels, golden.clean), 0)) == expected


def test_an_artifact_that_is_wrong_in_batches_of_another_size(again, linear, golden):
    assert BATCH_SIZES[1] <= len(golden.labels) <= BATCH

    def function(images):
        inside = BATCH_SIZES[0] <= len(images) < BATCH_SIZES[1]
        return wrong(linear.logits(images)) if inside else linear.logits(images)

    measured = again(function)
    assert not measured.artifact_robust[: len(golden.labels) // 2].any()  # the last batch may hold one image
    assert names(measured) == ["batch_dependent"]
    assert "in batches of" in measured.flags[0].detail


def test_the_other_batch_size_is_drawn_by_the_seed(again, linear):
    sizes = set()
    for seed in range(30):
        seen = []
        again(lambda images, seen=seen: seen.append(len(images)) or linear.logits(images), seed=seed)
        (size,) = {size for size in seen if size not in (1, 60) and seen.count(size) >= 60 // size}
        sizes.add(size)
    assert sizes <= set(range(*BATCH_SIZES))
    assert len(sizes) > 10


def test_few_calls_that_each_fill_a_large_batch(of_batch, golden, linear):
    """The bundle is called with 20,000 images, whatever is to be classified; chance must not double the time."""
    calls = []

    def function(images):
        calls.append(len(images))
        return linear.logits(images)

    subject = of_batch(20_000, function)
    assert names(scored_again(subject, measurement(golden.labels, golden.clean), 0)) == []
    assert len(calls) <= 2 + 4 + 4
    calls.clear()
    (remark,) = (line for line in inspect_artifact(subject).remarks if "20000" in line)
    assert "4 candidates" in remark
    assert len(calls) <= 2 + 2 + 4
    assert set(calls) == {20_000}


@pytest.fixture
def of_batch(Fake, subject_for, opened):
    """of_batch(batch, function) -> the artifact with a fixed batch."""

    def build(batch, function):
        shape = (batch, 1, 4, 4)
        manifest = dataclasses.replace(opened.manifest, input=dataclasses.replace(opened.manifest.input, shape=shape))
        bundle = dataclasses.replace(opened, manifest=manifest)
        return subject_for(model=Fake(manifest, function).open(), bundle=bundle)

    return build


@pytest.mark.parametrize("batch", [8, 33, 50, 100, 512])
def test_candidates_have_others_beside_them_the_second_time(batch, of_batch, golden, linear):
    """An artifact that is wrong except in the batches of the attack, and alone; 2,040 candidates fill many batches."""
    random = np.random.default_rng(0)
    images = np.clip(np.tile(golden.clean, (34, 1, 1, 1)) + random.normal(0, 1e-4, (2040, 1, 4, 4)), 0, 1)
    images = images.astype(np.float32)
    known = {part.tobytes() for part in filled(images, batch).reshape(-1, batch, 1, 4, 4)}

    def function(batch):
        same = batch.tobytes() in known or (batch == batch[:1]).all()
        return linear.logits(batch) if same else wrong(linear.logits(batch))

    measured = scored_again(of_batch(batch, function), measurement(np.tile(golden.labels, 34), images), 0)
    assert names(measured) == ["batch_dependent"]
    assert "in batches of" in measured.flags[0].detail
    assert measured.artifact_robust.mean() < 0.01


@pytest.mark.parametrize("count", [1, 2, 60, 500, 2000, 100_000])
@pytest.mark.parametrize("batch", [None, 1, 2, 8, 32, 33, 40, 50, 100, 125, 250, 512, 20_000])
def test_the_other_size_is_below_the_fixed_batch_and_needs_few_calls(batch, count, of_batch, linear):
    model = of_batch(batch, linear.logits).model
    sizes = {_other_size(model, count, np.random.default_rng(seed)) for seed in range(20)}
    assert min(sizes) >= 1
    assert max(sizes) < max(2, min(batch or count, count))
    if batch and batch > 32 and sizes != {batch - 1}:
        assert -(-count // min(sizes)) <= repeats(model, SINGLE_CANDIDATES) + -(-count // batch)


@pytest.mark.parametrize(("threads", "wrong_with", "word"), [(1, 2, "threads=2"), (2, 1, "threads=1"), (4, 1, "=1")])
def test_an_artifact_that_is_wrong_with_another_number_of_threads(
    threads, wrong_with, word, subject_for, opened, golden, linear
):
    kind = type("Kind", (Threaded,), {"linear": linear, "wrong_with": wrong_with})
    model = kind(Path("fake.bin"), opened.manifest, threads=threads)
    with model:
        measured = scored_again(subject_for(model=model), measurement(golden.labels, golden.clean), 0)
    assert not measured.artifact_robust.any()
    assert names(measured) == ["batch_dependent"]
    assert word in measured.flags[0].detail


def test_threads_are_left_out_where_the_runtime_has_none(subject_for, opened, golden, linear):
    kind = type("Kind", (Threaded,), {"linear": linear, "uses_threads": False})
    with kind(Path("fake.bin"), opened.manifest) as model:
        measured = scored_again(subject_for(model=model), measurement(golden.labels, golden.clean), 0)
    assert measured.artifact_robust.all()
    assert measured.flags == ()


def test_an_artifact_that_answers_by_chance(again, linear):
    """Every other pass is another network's; to allow chance is not to allow other logits in other batches."""
    passes = itertools.count()
    measured = again(lambda images: linear.logits(images) if next(passes) % 2 else wrong(linear.logits(images)))
    assert not measured.artifact_robust.any()
    assert set(names(measured)) == {"randomised", "batch_dependent"}


def test_noise_does_not_hide_that_images_alone_are_answered_otherwise(again, linear):
    random = np.random.default_rng(0)

    def function(images):
        logits = linear.logits(images) + random.normal(0, 0.01, (len(images), 4)).astype(np.float32)
        return wrong(logits) if len(images) == 1 else logits

    assert names(again(function)) == ["randomised", "batch_dependent"]


def test_a_little_noise_on_the_logits_is_named_although_every_class_stays(again, linear):
    random = np.random.default_rng(0)

    def noisy(images):
        return linear.logits(images) + random.normal(0, 0.01, (len(images), 4)).astype(np.float32)

    measured = again(noisy)
    assert measured.artifact_robust.mean() > 0.9
    assert names(measured) == ["randomised"]


def test_a_logit_that_is_no_number(again, linear):
    def overflown(images):
        logits = linear.logits(images)
        logits[:, 0] = np.nan if len(images) == 1 else logits[:, 0]
        return logits

    measured = again(overflown)
    assert names(measured) == ["non_finite", "batch_dependent"]
    assert not measured.artifact_robust.any()


def test_logits_that_are_never_finite_depend_on_nothing(again, linear):
    assert names(again(lambda images: linear.logits(images) * np.float32(np.nan))) == ["non_finite"]


def test_an_image_falls_by_either_networks_candidate(again, linear, golden):
    """The second set are the points that were found against the checkpoint."""
    other = golden.clean.copy()
    other[3] = golden.clean[4]  # of another class
    measured = again(linear.logits, golden.clean, other)
    assert (~measured.artifact_robust).nonzero()[0].tolist() == [3]


def test_what_was_lost_before_stays_lost(again, linear):
    robust = np.arange(60) % 3 > 0
    assert again(linear.logits, robust=robust).artifact_robust.tolist() == robust.tolist()


def test_images_that_count_as_robust_are_the_first_to_be_scored_alone(again, linear, golden):
    """Two candidates of each image are more than are scored alone; those of the lost images may be left out."""
    robust = np.arange(60) < SINGLE_CANDIDATES // 2
    alone = []

    def function(images):
        if len(images) == 1:
            alone.append(images[0].tobytes())
        return linear.logits(images)

    moved = np.clip(golden.clean + np.float32(1e-3), 0, 1)
    again(function, golden.clean, moved, robust=robust)
    candidates = {image.tobytes() for image in (*golden.clean[robust], *moved[robust])}
    assert len(candidates) == SINGLE_CANDIDATES
    assert candidates <= set(alone)


def test_candidates_are_compared_with_the_checkpoint(again, linear):
    """A network of other logits but the same classes."""
    measured = again(lambda images: linear.logits(images) * np.float32(1.2), reference=linear.logits)
    assert measured.artifact_robust.all()
    assert names(measured) == ["not_the_checkpoint"]
    assert "final candidates of mode whitebox" in measured.flags[0].detail
    assert again(linear.logits, reference=linear.logits).flags == ()
