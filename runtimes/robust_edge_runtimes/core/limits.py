"""How long the code of a foreign file may run; `cli/supervision.py` ends a command that exceeds it.

A graph that loops for ever cannot be stopped from within its process: it runs in a library, on any of its threads. The
process therefore only writes into memory that it shares with a supervisor what it runs and for how long it may. Without
a supervisor, as in a program that calls `load()`, nothing is limited.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import struct
import time
from typing import Iterator, Optional, Tuple, Type

from robust_edge_runtimes.core.errors import RobustEdgeError, shown

COMPILATION = 60
"""How much longer than a file that is only loaded one may take that is compiled when it is opened."""
SLOWER = 10
"""How much slower per image a call may be than an earlier one: denormal numbers, a busy machine."""
FIRST = 10
"""Images for each of which the first call may take as long as a later call in all."""
MAX_TEXT = 1000

_ALLOWED, _CALL, _EXIT_CODE, _LENGTH, _TEXT = 0, 8, 16, 24, 32  # offsets in bytes


class Board:
    """Memory that a process shares with its supervisor: the call that is running, and how long it may take.

    The number of seconds is written last and erased first, each as one aligned word, so that the supervisor never sees
    the seconds of one call with the number of another.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def begin(self, text: str, exit_code: int, allowed: float) -> None:
        """State that a call begins.

        Args:
            text: what is done, as a phrase for an error.
            exit_code: of the error if it does not end.
            allowed: seconds.
        """
        blob = text.encode(errors="backslashreplace")[:MAX_TEXT]
        self._memory[_TEXT : _TEXT + len(blob)] = blob
        struct.pack_into("=qq", self._memory, _EXIT_CODE, exit_code, len(blob))
        struct.pack_into("=q", self._memory, _CALL, self.call + 1)
        struct.pack_into("=d", self._memory, _ALLOWED, allowed)

    def end(self) -> None:
        """State that the call has ended."""
        struct.pack_into("=d", self._memory, _ALLOWED, 0.0)

    @property
    def allowed(self) -> float:
        """Seconds that the running call may take; 0 while none runs."""
        return float(struct.unpack_from("=d", self._memory, _ALLOWED)[0])

    @property
    def call(self) -> int:
        """The number of the last call."""
        return int(struct.unpack_from("=q", self._memory, _CALL)[0])

    @property
    def described(self) -> Tuple[str, int]:
        """The last call in words, and the exit code if it does not end."""
        code, length = struct.unpack_from("=qq", self._memory, _EXIT_CODE)
        return self._memory[_TEXT : _TEXT + length].decode(errors="replace"), int(code)


class TimeLimit:
    """The time that one file may take when it is opened and at every call.

    Opening it may take the seconds of --max-seconds, and the first call as long for each of FIRST images. A later call
    of n images may take as long as one, and in addition SLOWER times n times as long as the fastest call took per image
    so far. Of nested blocks the outer one counts.

    Args:
        name: of the file, for errors.
        error: the class whose exit code applies if the limit is exceeded.
    """

    def __init__(self, name: str, error: Type[RobustEdgeError]) -> None:
        self._name = name
        self._exit_code = error.exit_code
        self._per_image = math.inf

    @contextlib.contextmanager
    def opening(self, *, compiles: bool = False, action: str = "reading") -> Iterator[None]:
        """The block opens the file; `compiles`: by compiling it, which may take COMPILATION times as long."""
        with _limited(f"{action} {self._name}", self._exit_code, COMPILATION if compiles else 1, 0.0):
            yield

    @contextlib.contextmanager
    def call(self, count: int) -> Iterator[None]:
        """The block has the file classify `count` images."""
        text = f"classifying {count} {'image' if count == 1 else 'images'} by {self._name}"
        start = time.monotonic()
        factor = min(count, FIRST) if math.isinf(self._per_image) else 1
        with _limited(text, self._exit_code, factor, SLOWER * self._expected(count)):
            yield
        self._per_image = min(self._per_image, (time.monotonic() - start) / count)

    @contextlib.contextmanager
    def timing(self, seconds: float, count: int) -> Iterator[None]:
        """The block repeats calls for `seconds`, and on `count` images or more."""
        more = SLOWER * (seconds + self._expected(count))
        with _limited(f"timing {self._name}", self._exit_code, 1, more):
            yield

    def _expected(self, count: int) -> float:
        """Seconds for so many images, 0 before the first call."""
        return 0.0 if math.isinf(self._per_image) else count * self._per_image


_board: Optional[Board] = None
_seconds = 0.0
_process = 0


def report_to(board: Board, seconds: float) -> None:
    """Let the supervisor of this process read from `board` what runs; `seconds` as in --max-seconds."""
    global _board, _seconds, _process
    _board, _seconds, _process = board, seconds, os.getpid()


def to_be_limited() -> bool:
    """Whether a supervisor enforces limits, of this process and not of one that has forked it, and none holds yet."""
    return _board is not None and _process == os.getpid() and not _board.allowed


@contextlib.contextmanager
def _limited(text: str, exit_code: int, factor: float, more: float) -> Iterator[None]:
    if not to_be_limited():
        yield
        return
    assert _board is not None
    _board.begin(shown(text), exit_code, factor * _seconds + more)
    try:
        yield
    finally:
        _board.end()
