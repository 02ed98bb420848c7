"""Defer SIGTERM, which schedulers send before they end a job, until the state has been saved."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import torch

from robust_edge.parallel.ranks import Ranks
from robust_edge.training.synchrony import sum_over_ranks

CODE = 128 + signal.SIGTERM


@contextlib.contextmanager
def deferred_termination(ranks: Ranks) -> Iterator[Callable[[], bool]]:
    """Defer SIGTERM to the end of the block; a second one takes effect at once.

    Yields:
        A function that returns whether any rank has received SIGTERM; a collective operation of all ranks.
    """
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if received:
            _terminate(before)
        received.append(number)

    def on_any_rank() -> bool:
        return bool(sum_over_ranks(torch.tensor(float(len(received))), ranks))

    before = signal.getsignal(signal.SIGTERM)
    deferrable = threading.current_thread() is threading.main_thread() and before not in (None, signal.SIG_IGN)
    if not deferrable:
        yield on_any_rank
        return
    signal.signal(signal.SIGTERM, note)
    try:
        yield on_any_rank
    finally:
        signal.signal(signal.SIGTERM, before)
    if received:
        _terminate(before)


def _terminate(before: signal.Handlers | Callable[[int, FrameType | None], object] | int | None) -> None:
    """Let the previous handler act on SIGTERM; exit if it returns."""
    signal.signal(signal.SIGTERM, before)
    signal.raise_signal(signal.SIGTERM)
    raise SystemExit(CODE)
