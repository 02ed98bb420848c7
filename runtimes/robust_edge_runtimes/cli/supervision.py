"""Run a command in a process of its own, and end that process if a foreign file takes too much memory or time.

A file from elsewhere may hold a graph that loops for ever, asks for more memory than there is, or crashes the library
that executes it. The command therefore continues in a child, the worker, while its parent, the supervisor, only waits.
It ends with the worker's exit code, or kills it and prints one line.

- Not a trial of the file in a child before the work: a loop may depend on the image, so that the work had to be limited
  anyway, and every file would be opened twice.
- Not RLIMIT_DATA or RLIMIT_AS: they count what is reserved and never used, such as the stacks of threads and the
  address space of CUDA, and a failed allocation in a thread of C++ ends the process without a message. The supervisor
  reads what is in use, 20 times a second. Whatever is taken between two readings may still exhaust the memory; the
  system then ends the worker first, and the supervisor says so.
- The fork comes before any backend is imported, whose threads a child would not have. It takes 5 ms.

The worker has a process group of its own, so that it receives each signal once: SIGINT, SIGTERM and SIGTSTP are passed
on by the supervisor. It is killed when the supervisor is, and when it has
not ended GRACE seconds after SIGINT or SIGTERM, or at the second of them. Its temporary files lie in one folder, which
the supervisor removes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Optional, Tuple, TypeVar

import click

from robust_edge_runtimes.cli.failures import INTERNAL, print_failure
from robust_edge_runtimes.core.environment import available_memory
from robust_edge_runtimes.core.errors import InputError, RobustEdgeError
from robust_edge_runtimes.core.files import locked_folder
from robust_edge_runtimes.core.folders import SCRATCH
from robust_edge_runtimes.core.limits import COMPILATION, SLOWER, Board, report_to
from robust_edge_runtimes.core.processes import end_with

F = TypeVar("F", bound=Callable[..., Any])
SECONDS = 60.0
SHARE = 0.9
"""Of the memory that is available when a command starts."""
PAUSE = 0.05
GRACE = 10.0
"""Seconds that a worker may take to end after SIGINT or SIGTERM; code of a foreign file may never return."""
MEMORY_IN_USE = ("RssAnon:", "RssShmem:", "VmSwap:")  # not the pages of files, which the system can drop
FIRST_KILLED = 500  # of 1000: which process the system ends when memory runs out
GIGABYTE = 1e9


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of a command that reads foreign files.

    Attributes:
        memory: gigabytes that the worker may have in use.
        seconds: that opening a file, or one call of it, may take; more as TimeLimit says.
    """

    memory: float
    seconds: float

    @property
    def unlimited(self) -> bool:
        """Whether there is nothing to enforce."""
        return math.isinf(self.memory) and math.isinf(self.seconds)


class Limit(click.types.FloatParamType):
    """A number above 0, or infinity."""

    def convert(self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]) -> float:
        """Fail for 0, negative numbers and NaN."""
        number: float = super().convert(value, param, ctx)
        if not number > 0:
            self.fail(f"it must be above 0; it is {number:g}", param, ctx)
        return number


def limit_options(command: F) -> F:
    """Add --max-memory and --max-seconds to a command, whose body then runs in the worker."""

    @click.option(
        "--max-memory",
        type=Limit(),
        metavar="GB",
        help="End if more memory is in use, in gigabytes; `inf`: no limit.  "
        f"[default: {100 * SHARE:g}% of what is free when the command starts]",
    )
    @click.option(
        "--max-seconds",
        type=Limit(),
        metavar="N",
        help="End if opening a file, or one call of it, takes longer; `inf`: no limit. A call may in addition take "
        f"{SLOWER} times as long as so many images took before, and opening {COMPILATION} times as long where it "
        f"compiles.  [default: {SECONDS:g}]",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, max_memory: Optional[float], max_seconds: Optional[float], **others: Any) -> Any:
        limits = Limits(
            _default_memory() if max_memory is None else max_memory, SECONDS if max_seconds is None else max_seconds
        )
        given = max_memory is not None or max_seconds is not None
        if _can_supervise(required=given) and not limits.unlimited:
            continue_in_worker(limits)
        return command(*args, **others)

    return wrapped  # type: ignore[return-value]


def _default_memory() -> float:
    available = available_memory()
    return math.inf if available is None else SHARE * available / GIGABYTE


def _can_supervise(*, required: bool) -> bool:
    """Whether this process may continue in a child.

    Not in a program that calls the command with arguments: it may have threads and open files of its own.

    Args:
        required: whether to fail on a system that cannot limit a process.
    """
    if not sys.platform.startswith("linux"):
        if required:
            raise InputError("`max_memory` and `max_seconds` can be enforced on Linux only; leave them out")
        return False
    return bool(getattr(click.get_current_context().find_root().command, "owns_process", False))


def continue_in_worker(limits: Limits) -> None:
    """Return in a child process; this process waits for it and ends with its exit code."""
    board, supervisor = Board(), os.getpid()
    caught = {signal.SIGINT, signal.SIGTERM, signal.SIGCHLD}
    if signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:
        caught.add(signal.SIGTSTP)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, caught)
    scratch = _scratch()
    worker = os.fork()
    if worker:
        code = _Supervisor(worker, board, limits, caught).wait()
        if scratch is not None:
            shutil.rmtree(str(scratch), ignore_errors=True)
        os._exit(code)
    if scratch is not None:
        os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
    os.setpgid(0, 0)
    _end_with(supervisor)
    report_to(board, limits.seconds)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _scratch() -> Optional[Path]:
    """A new folder for the temporary files of the worker; None where there is no place for one.

    This process and the worker hold its lock, so that it can be removed by the next command if both are killed.
    """
    try:
        return locked_folder(Path(tempfile.gettempdir()), SCRATCH)[0]
    except OSError:
        return None


def _end_with(supervisor: int) -> None:
    """Let the system kill this process when its supervisor ends, and end this one first when memory runs out."""
    end_with(supervisor)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # it writes to a terminal whose foreground group is the supervisor's
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(FIRST_KILLED))


class _Supervisor:
    """Waits for the worker."""

    def __init__(self, worker: int, board: Board, limits: Limits, caught: Any) -> None:
        self._worker = worker
        self._board = board
        self._limits = limits
        self._caught = caught
        self._call = 0
        self._elapsed = 0.0  # of the running call; only while the supervisor runs, neither stopped nor suspended
        self._seen = time.monotonic()
        self._ending = 0  # the signal that asked the worker to end
        self._deadline = math.inf

    def wait(self) -> int:
        """Wait for the worker's end, pass signals on and enforce the limits; return the exit code."""
        with contextlib.suppress(OSError):  # the worker does the same; whoever comes first
            os.setpgid(self._worker, self._worker)
        while True:
            arrived = signal.sigtimedwait(self._caught, PAUSE)
            ended, status = os.waitpid(self._worker, os.WNOHANG)
            if ended:
                return self._exit_code(status)
            excess = self._excess()
            if excess is not None:
                self._kill()
                return _failed(*excess)
            if time.monotonic() > self._deadline:
                self._kill()
                print_failure(f"the command did not end after {signal.Signals(self._ending).name} and was killed")
                return 128 + self._ending
            if arrived is not None:
                self._pass_on(arrived.si_signo)

    def _pass_on(self, number: int) -> None:
        if number == signal.SIGTSTP:
            os.killpg(self._worker, signal.SIGSTOP)
            os.kill(os.getpid(), signal.SIGSTOP)
            os.killpg(self._worker, signal.SIGCONT)
        elif number != signal.SIGCHLD:
            os.kill(self._worker, number)
            self._deadline = time.monotonic() + (0.0 if self._ending else GRACE)
            self._ending = number

    def _kill(self) -> None:
        os.killpg(self._worker, signal.SIGKILL)
        os.waitpid(self._worker, 0)

    def _excess(self) -> Optional[Tuple[str, int]]:
        """An error and its exit code if a limit is exceeded."""
        allowed, call = self._board.allowed, self._board.call
        now = time.monotonic()
        step, self._seen = min(now - self._seen, 2 * PAUSE), now
        if not allowed or call != self._call:
            self._call, self._elapsed = call, 0.0
        else:
            self._elapsed += step
        text, code = self._board.described
        if allowed and self._elapsed > allowed:
            return f"{text} did not end within {allowed:.3g} s; on a slow machine, raise --max-seconds", code
        if memory_in_use(self._worker) > self._limits.memory * GIGABYTE:
            what, code = (text, code) if allowed else ("this", RobustEdgeError.exit_code)
            limit = f"{self._limits.memory:.3g} GB"
            return f"{what} takes more than {limit} of memory; if there is more, raise --max-memory", code
        return None

    def _exit_code(self, status: int) -> int:
        if os.WIFEXITED(status):
            return os.WEXITSTATUS(status)
        name = signal.Signals(os.WTERMSIG(status)).name
        text, code = self._board.described
        if self._board.allowed:
            return _failed(f"{text} ended the process by {name}", code)
        if name == "SIGKILL":
            return _failed("the process was killed (SIGKILL), as when memory runs out", RobustEdgeError.exit_code)
        return _failed(f"internal error in robust-edge: the process ended by {name}", INTERNAL)


def _failed(text: str, code: int) -> int:
    print_failure(text)
    return code


def memory_in_use(process: int) -> int:
    """Bytes of memory and swap that a process and its children have in use, without the pages of files."""
    folder, total = Path(f"/proc/{process}"), 0
    with contextlib.suppress(OSError):  # it has ended
        lines = (folder / "status").read_text(encoding="utf-8", errors="replace").splitlines()
        total = sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(MEMORY_IN_USE))
        children = (folder / "task" / str(process) / "children").read_text().split()  # not in every kernel
        total += sum(memory_in_use(int(child)) for child in children)
    return total
