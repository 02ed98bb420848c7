"""How fast training is at present."""

from __future__ import annotations

import time
from collections import deque

WINDOW = 20.0
"""Seconds that the speed is of, so that neither a single batch nor the pause between two epochs decides it."""


class Speed:
    """Images per second in the last seconds of training.

    Args:
        images: number of images of the run that earlier processes trained on.
    """

    def __init__(self, images: float) -> None:
        self._marks: deque[tuple[float, float]] = deque([(time.monotonic(), images)])

    def after(self, images: float) -> float:
        """The speed when so many images of the run are done."""
        now = time.monotonic()
        self._marks.append((now, images))
        while len(self._marks) > 2 and self._marks[1][0] <= now - WINDOW:
            self._marks.popleft()
        begun, before = self._marks[0]
        return (images - before) / max(now - begun, 1e-9)
