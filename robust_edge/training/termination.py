"""SIGTERM, the usual notice before a machine is taken away, waits until the work can be taken up again."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import torch

from robust_edge.parallel.ranks import Ranks
from robust_edge.training.synchrony import total

CODE = 128 + signal.SIGTERM


@contextlib.contextmanager
def deferred_termination(ranks: Ranks) -> Iterator[Callable[[], bool]]:
    """Put SIGTERM off to the end of the block; a second one is not put off.

    Yields:
        Whether any rank was asked to end; all ranks must call it at the same places.
    """
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if asked:
            _end_as(before)
        asked.append(number)

    def anywhere() -> bool:
        return bool(total(torch.tensor(float(len(asked))), ranks))

    before = signal.getsignal(signal.SIGTERM)
    minded = threading.current_thread() is threading.main_thread() and before not in (None, signal.SIG_IGN)
    if not minded:
        yield anywhere
        return
    signal.signal(signal.SIGTERM, note)
    try:
        yield anywhere
    finally:
        signal.signal(signal.SIGTERM, before)
    if asked:
        _end_as(before)


def _end_as(before: signal.Handlers | Callable[[int, FrameType | None], object] | int | None) -> None:
    """What SIGTERM would have done without us; at the latest an exit."""
    signal.signal(signal.SIGTERM, before)
    signal.raise_signal(signal.SIGTERM)
    raise SystemExit(CODE)
