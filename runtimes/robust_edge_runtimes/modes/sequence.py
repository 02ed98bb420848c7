"""Images drawn in blocks until the verdict is decided."""

from __future__ import annotations

from typing import Any, Callable, Dict, Sequence, Union

from robust_edge_runtimes.modes.mode import Mode, Progress
from robust_edge_runtimes.verdict.judge import UNDECIDED, Verdict, judge
from robust_edge_runtimes.verdict.measurement import Budget, Measurement, Rebuild
from robust_edge_runtimes.verdict.statistic import looks
from robust_edge_runtimes.verdict.subject import Subject


def judge_in_blocks(
    subject: Subject,
    modes: Sequence[Mode],
    settings: Any,
    budget: Budget,
    progress: Callable[[str], Progress] = lambda _: None,
) -> Verdict:
    """Attack blocks of images in every mode until the drops are shown to lie within or beyond the budget.

    Args:
        subject: the artifact under test.
        modes: at least one. Those that do not draw images run once.
        settings: of the modes.
        budget: what may be lost.
        progress: called with a mode's name, returns what is called with (steps done, steps in all).

    Returns:
        The verdict of the last look: after 500, 1,000, 2,000, ... images, or all that there are.
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
        verdict = judge(subject, list(results.values()), budget, look=look, last=stop == counts[-1])
        if verdict.outcome != UNDECIDED:
            break
        start = stop
    return verdict
