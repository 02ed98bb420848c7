"""Draw images in blocks until they decide the verdict."""

from __future__ import annotations

from typing import Callable, Dict, Sequence, Union

from robust_edge_runtimes.modes.mode import Mode, Progress
from robust_edge_runtimes.modes.settings import ModeSettings
from robust_edge_runtimes.verdict.inspection import Inspection
from robust_edge_runtimes.verdict.judge import UNDECIDED, Verdict, judge
from robust_edge_runtimes.verdict.measurement import Budget, Measurement, Rebuild
from robust_edge_runtimes.verdict.statistic import looks
from robust_edge_runtimes.verdict.subject import Subject


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
    start = 0
    for look, stop in enumerate(counts, 1):
        part = subject.part(start, stop)
        for mode in modes:
            before = results.get(mode.name)
            if before is None or mode.draws:
                found = mode.measure(part, settings, progress(mode.name))
                if isinstance(before, Measurement) and isinstance(found, Measurement):
                    found = before.joined(found)
                results[mode.name] = found
        verdict = judge(inspection, list(results.values()), budget, look=look, last=stop == counts[-1])
        if verdict.outcome != UNDECIDED:
            break
        start = stop
    return verdict
