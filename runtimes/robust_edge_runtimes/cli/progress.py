"""Progress of a long computation on stderr."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from typing import Deque, Optional, TextIO, Tuple


class Progress:
    """Shows progress when called with (done, total): a bar with the time left on a terminal, otherwise some lines.

    Until a first step is done, the time that has passed is shown instead of the time left. The estimate takes the speed
    of the second half of the time that has passed, so that it follows work that becomes slower or faster.

    Args:
        label: what is being done.
        stream: where to write; None for nowhere.
        interval: least time between two lines in seconds, where `stream` is not a terminal.
        begun: fraction of the work that an earlier process did; it does not count for the estimate of the time left.
            None: the first call gives it.
    """

    def __init__(
        self, label: str, stream: Optional[TextIO], *, interval: float = 10.0, begun: Optional[float] = 0.0
    ) -> None:
        self._label = label
        self._begun = begun
        self._stream = stream
        self._terminal = stream is not None and stream.isatty()
        self._interval = 0.1 if self._terminal else interval
        self._start = self._last = time.monotonic()
        self._marks: Deque[Tuple[float, float]] = deque()  # times, and the steps that were done then

    def __call__(self, done: int, total: int, detail: str = "") -> None:
        """Show that `done` of `total` steps are done."""
        now = time.monotonic()
        if self._begun is None:
            self._begun = done / max(total, 1)
        if not self._marks:
            self._marks.append((self._start, self._begun * total))
        finished = done >= total
        if self._stream is None or (now - self._last < self._interval and not finished):
            return
        self._last = now
        when = f"{_duration(now - self._start)}"
        if not finished:
            seconds, steps = self._recent(now, done)
            when = f"{_duration(seconds / steps * (total - done))} left" if steps > 0 else f"{when} so far"
        text = f"{self._label} {done}/{total}  {when}  {detail}".rstrip()
        shown = f"\r\033[K{_bar(done / max(total, 1))} {text}" + ("\n" if finished else "")
        with contextlib.suppress(OSError):  # a full or closed stderr must not end the work
            self._stream.write(shown if self._terminal else text + "\n")
            self._stream.flush()

    def _recent(self, now: float, done: int) -> Tuple[float, float]:
        """Seconds and steps since the first mark in the second half of the time that has passed."""
        self._marks.append((now, done))
        while len(self._marks) > 2 and self._marks[1][0] <= (self._start + now) / 2:
            self._marks.popleft()
        begun, before = self._marks[0]
        return now - begun, done - before


def _bar(fraction: float) -> str:
    filled = int(20 * min(fraction, 1.0))
    return "█" * filled + "░" * (20 - filled)


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"
