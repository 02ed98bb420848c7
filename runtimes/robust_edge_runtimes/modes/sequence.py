"""Draw images in blocks until they decide the verdict."""

from __future__ import annotations

import math
from typing import Callable, Dict, Iterator, Sequence, Tuple, Union

from robust_edge_runtimes.modes.mode import Mode, Progress
from robust_edge_runtimes.modes.settings import ModeSettings
from robust_edge_runtimes.verdict.inspection import Inspection
from robust_edge_runtimes.verdict.judge import UNDECIDED, Verdict, judge
from robust_edge_runtimes.verdict.measurement import Budget, Measurement, Rebuild
from robust_edge_runtimes.verdict.statistic import MIN_IMAGES, looks
from robust_edge_runtimes.verdict.subject import Subject

MANY_VALUES = 1 << 26
"""Values of the images that are attacked together, which modes keep about ten times: 445 images of 3x224x224."""


def judge_in_blocks(
    subject: Subject,
    inspection: Inspection,
    modes: Sequence[Mode],
    settings: ModeSettings,
    budget: Budget,
    progress: Callable[[str], Progress] = lambda _: None,
) -> Verdict:
    """Attack blocks of images in every mode until an interim test shows that the drops lie within or beyond the budget.

    Args:
        subject: the artifact under test.
        inspection: of the same artifact.
        modes: at least one mode. Modes that do not draw images run once.
        settings: of the modes.
        budget: percentage points that the artifact may lose, and flags that it may raise.
        progress: from a mode's name to its progress callback.

    Returns:
        The verdict of the last interim test (look): after 500, 1,000, 2,000, ... images, or after all.
    """
    counts = looks(subject.available) if any(mode.draws for mode in modes) else (subject.available,)
    results: Dict[str, Union[Measurement, Rebuild]] = {}
    start, values = 0, math.prod(size or 1 for size in subject.bundle.manifest.input.shape[1:])
    for look, stop in enumerate(counts, 1):
        for first, last in parts(start, stop, values):
            _measure(subject.part(first, last), modes, settings, progress, results)
        verdict = judge(inspection, list(results.values()), budget, look=look, last=stop == counts[-1])
        if verdict.outcome != UNDECIDED:
            break
        start = stop
    return verdict


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
) -> None:
    """Run every mode on a part of the images, and join its result with those of earlier parts."""
    for mode in modes:
        before = results.get(mode.name)
        if before is None or mode.draws:
            found = mode.measure(part, settings, progress(mode.name))
            if isinstance(before, Measurement) and isinstance(found, Measurement):
                found = before.joined(found)
            results[mode.name] = found
