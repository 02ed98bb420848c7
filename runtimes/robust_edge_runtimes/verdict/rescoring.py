"""Score the final candidates of an attack again, in other batches, one by one and with other numbers of threads.

An attack scores its candidates in batches, while an application may send one image at a time. An artifact whose logits
depend on the batch, on random numbers or on the number of threads could be robust in only one of these cases.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Dict, List

import numpy as np

from robust_edge_runtimes.core.batches import in_batches
from robust_edge_runtimes.core.logits import is_right
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.scoring import repeats, score_of
from robust_edge_runtimes.verdict.checks import batch_dependent, non_finite, randomised
from robust_edge_runtimes.verdict.flags import Check, raised
from robust_edge_runtimes.verdict.measurement import Measurement
from robust_edge_runtimes.verdict.subject import Subject

SINGLE_CANDIDATES = 64  # candidates of one mode that are also scored one by one
BATCH_SIZES = (2, 32)  # range of the other batch size, which is random so that an artifact cannot know it


def scored_again(subject: Subject, measurement: Measurement, seed: int) -> Measurement:
    """Score the final candidates again; an image stays robust only if the artifact is right every time.

    The candidates are scored twice in batches of the attack's size, in batches of another size and in another order,
    with another number of threads if the runtime has threads, and some of them one by one, candidates of robust images
    first. Where each call fills a large fixed batch, fewer calls do that.

    Args:
        subject: the artifact under test.
        measurement: of a mode; returned unchanged if it has no candidates.
        seed: for the batch size, the order and the candidates that are scored one by one.
    """
    found = measurement.candidates
    if found is None:
        return measurement
    start, count = time.monotonic(), len(found.labels)
    random = np.random.default_rng((seed, int(measurement.ids[0])))
    images, labels = np.concatenate(found.images), np.tile(found.labels, len(found.images))
    together = subject.score(images)
    order, size = random.permutation(len(images)), _other_size(subject.model, len(images), random)
    others = _other_scorings(subject, images, order, size)
    calls = repeats(subject.model, SINGLE_CANDIDATES)
    rows = order[np.argsort(~measurement.artifact_robust[order % count], kind="stable")][:calls]
    alone = np.concatenate([subject.score(images[row : row + 1]) for row in rows])
    right = np.logical_and.reduce([is_right(logits, labels) for logits in (together, *others.values())])
    right[rows] &= is_right(alone, labels[rows])
    name = f"final candidates of mode {measurement.mode}"
    checks = [
        dataclasses.replace(check, detail=f"{name}: {check.detail}")
        for check in _checks(together, others, alone, rows, subject)
    ]
    flags = raised([*checks, *subject.compared(name, images, together)])
    return dataclasses.replace(
        measurement,
        artifact_robust=measurement.artifact_robust & right.reshape(-1, count).all(axis=0),
        flags=(*measurement.flags, *flags),
        candidates=None,
        seconds=measurement.seconds + time.monotonic() - start,
    )


def fewer_calls(model: BaseRuntime) -> List[str]:
    """A note for the verdict, where a large fixed batch leaves fewer calls for single candidates; or none."""
    calls = repeats(model, SINGLE_CANDIDATES)
    if calls == SINGLE_CANDIDATES:
        return []
    batch = model.manifest.input.shape[0]
    return [f"every call fills a batch of {batch} images: {calls} candidates of each mode are scored one by one"]


def _other_size(model: BaseRuntime, count: int, random: np.random.Generator) -> int:
    """A random number of images for each call, smaller than a fixed batch and than all, so that calls hold others.

    A call of a multiple of the fixed batch would be split into batches that are full, as those of the first scoring.

    Args:
        model: if it has a large fixed batch, there are `repeats` calls more than full batches at most.
        count: of all images.
        random: draws the size.
    """
    fixed, calls = model.manifest.input.shape[0], repeats(model, SINGLE_CANDIDATES)
    low, high = BATCH_SIZES
    if fixed is not None and calls < SINGLE_CANDIDATES:
        low, high = -(-count // (calls + count // fixed)), fixed
    high = max(2, min(high, fixed or high, count))
    return int(random.integers(min(low, high - 1), high))


def _other_scorings(subject: Subject, images: np.ndarray, order: np.ndarray, size: int) -> Dict[str, np.ndarray]:
    """(N, K) logits of the same images by the way of scoring; `again` repeats the first one.

    Args:
        subject: the artifact under test.
        images: (N, C, H, W).
        order: (N,) positions of the images in the batches of another size.
        size: of these batches.
    """
    scorings = {"again": subject.score(images)}
    scorings[f"in batches of {size}"] = in_batches(subject.score, images[order], size)[np.argsort(order)]
    if subject.model.uses_threads:
        with with_other_threads(subject.model) as model:
            scorings[f"with threads={model.threads}"] = score_of(model)(images)
    return scorings


def with_other_threads(model: BaseRuntime) -> BaseRuntime:
    """A runtime of the same artifact, not yet open, with two threads, or with one if `model` has several."""
    return type(model)(model.path, model.manifest, threads=2 if model.threads == 1 else 1)


def _checks(
    together: np.ndarray, others: Dict[str, np.ndarray], alone: np.ndarray, rows: np.ndarray, subject: Subject
) -> List[Check]:
    precision, exact = subject.precision, subject.exact
    return [
        non_finite(np.concatenate([together, *others.values(), alone])),
        randomised(together, others["again"]),
        batch_dependent(alone, together[rows], precision, exact=exact),
        *(
            batch_dependent(logits, together, precision, how=how, exact=exact)
            for how, logits in others.items()
            if how != "again"
        ),
    ]
