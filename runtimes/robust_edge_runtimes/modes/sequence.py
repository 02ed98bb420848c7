"""Draw images in blocks until they decide the verdict."""

from __future__ import annotations

import dataclasses
import math
from typing import Callable, Dict, Iterator, Sequence, Tuple, Union

from robust_edge_runtimes.core.logits import is_right
from robust_edge_runtimes.modes.mode import Mode, Progress
from robust_edge_runtimes.modes.settings import ModeSettings
from robust_edge_runtimes.verdict.checks import BETTER_NETWORK, ENOUGH, NOTHING_TO_LOSE, Answers, nothing_to_lose
from robust_edge_runtimes.verdict.flags import Check
from robust_edge_runtimes.verdict.inspection import Inspection
from robust_edge_runtimes.verdict.judge import UNDECIDED, Verdict, judge
from robust_edge_runtimes.verdict.measurement import Budget, Measurement, Rebuild
from robust_edge_runtimes.verdict.statistic import MIN_IMAGES, looks
from robust_edge_runtimes.verdict.subject import Subject
from robust_edge_runtimes.verdict.ways_out import too_few_images

MANY_VALUES = 1 << 26
"""Values of the images that are attacked together, which modes keep about ten times: 445 images of 3x224x224."""


def judge_in_blocks(
    subject: Subject,
    inspection: Inspection,
    modes: Sequence[Mode],
    settings: ModeSettings,
    budget: Budget,
    progress: Callable[[str], Progress] = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> Verdict:
    """Attack blocks of images in every mode until an interim test shows that the drops lie within or beyond the budget.

    Args:
        subject: the artifact under test.
        inspection: of the same artifact.
        modes: at least one mode. Modes that do not draw images run once.
        settings: of the modes.
        budget: percentage points that the artifact may lose, and flags that it may raise.
        progress: from a mode's name and number to its progress callback.
        note: receives what is known about the verdict before the first attack, one line each.

    Returns:
        The verdict of the last interim test (look): after 500, 1,000, 2,000, ... images, or after all.
    """
    for line in too_few_images(mode.sample(subject, settings.limit) for mode in modes if mode.needs_runtime):
        note(f"note: the verdict will not be PASS. {line}")
    counts = looks(subject.available) if any(mode.draws for mode in modes) else (subject.available,)
    values = math.prod(size or 1 for size in subject.bundle.manifest.input.shape[1:])
    without = [mode for mode in modes if not mode.draws]
    if 0 < len(without) < len(modes) and NOTHING_TO_LOSE not in budget.allowed_flags:
        futile = _guesses(subject.part(*next(parts(0, counts[0], values))))
        if futile.raised:
            inspection = dataclasses.replace(inspection, outputs=(*inspection.outputs, futile))
            modes, counts = without, counts[:1]
    results: Dict[str, Union[Measurement, Rebuild]] = {}
    start = 0
    for look, stop in enumerate(counts, 1):
        for first, last in parts(start, stop, values):
            which = "" if (first, last) == (0, subject.available) else f", images {first + 1} to {last}"
            _measure(subject.part(first, last), modes, settings, progress, results, which)
        verdict = judge(inspection, list(results.values()), budget, look=look, last=stop == counts[-1])
        if verdict.outcome != UNDECIDED:
            break
        start = stop
    return verdict


def _guesses(subject: Subject) -> Check:
    """Whether the checkpoint is right no more often than by chance before any attack, so that attacks show nothing.

    Args:
        subject: with the images that are attacked first. Fewer would take honest checkpoints for guesses.
    """
    drawn = subject.images
    if subject.reference is None:
        right = subject.stored_answers(drawn.ids)[0]
    else:
        right = is_right(subject.reference(drawn.clean), drawn.labels)
    of_class = [right[drawn.labels == label] for label in sorted(set(drawn.labels.tolist()))]
    by_class = [(int(found.sum()), len(found)) for found in of_class if len(found) >= ENOUGH]
    classes = len(subject.bundle.manifest.classes)
    answers = Answers(right, "of the clean images, so that none was attacked", BETTER_NETWORK)
    return nothing_to_lose([answers], classes, by_class)


def parts(start: int, stop: int, values: int) -> Iterator[Tuple[int, int]]:
    """Divide a block of images into equal parts of MANY_VALUES or a little more, each of at least MIN_IMAGES images.

    Args:
        start, stop: of the block.
        values: of one image.
    """
    count = max(1, (stop - start) // max(MANY_VALUES // values, MIN_IMAGES))
    ends = [start + (stop - start) * part // count for part in range(count + 1)]
    return zip(ends, ends[1:])


def _measure(
    part: Subject,
    modes: Sequence[Mode],
    settings: ModeSettings,
    progress: Callable[[str], Progress],
    results: Dict[str, Union[Measurement, Rebuild]],
    which: str,
) -> None:
    """Run every mode on a part of the images, and join its result with those of earlier parts; `which` is displayed."""
    for number, mode in enumerate(modes, 1):
        before = results.get(mode.name)
        if before is None or mode.draws:
            label = f"{mode.name} (mode {number} of {len(modes)}{which if mode.draws else ''})"
            found = mode.measure(part, settings, progress(label))
            if isinstance(before, Measurement) and isinstance(found, Measurement):
                found = before.joined(found)
            results[mode.name] = found
