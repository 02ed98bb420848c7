"""The click group of every command line of the project: exit codes, Ctrl-C and SIGTERM."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from types import FrameType
from typing import Any, Iterator, List, NoReturn, Optional

import click

from robust_edge_runtimes.cli.failures import Terminated, report_failure
from robust_edge_runtimes.cli.flags import with_flags
from robust_edge_runtimes.cli.streams import discard_stdout, open_missing_streams
from robust_edge_runtimes.core.errors import RobustEdgeError


class CommandLine(click.Group):
    """A click group that turns exceptions into one line on stderr and the documented exit code.

    Attributes:
        owns_process: whether it was called with the arguments of the process, and so not by a program with a life of
            its own.
    """

    owns_process = False

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run a command and exit with its exit code."""
        self.owns_process = not args and kwargs.get("args") is None
        kwargs["standalone_mode"] = False
        open_missing_streams()
        with _recorded_interrupts() as interrupts, _termination_as_exception():
            try:
                code = super().main(*args, **kwargs)
                sys.stdout.flush()
            except BaseException as error:
                if self.owns_process:
                    _end_at_further_signals()
                # a library may catch the KeyboardInterrupt and raise an error of its own
                code = report_failure(KeyboardInterrupt() if interrupts else error)
                _flush_or_discard()
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; to the settings that an error of library code names, add the command's options."""
        try:
            return super().invoke(ctx)
        except RobustEdgeError as error:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            if command is not None:
                error.args = (with_flags(str(error), command),)
            raise


def _end_at_further_signals() -> None:
    """Let another Ctrl-C or SIGTERM end the process at once, which may still wait for threads; not by a traceback."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)


def _flush_or_discard() -> None:
    try:
        sys.stdout.flush()
    except OSError:
        discard_stdout()


@contextlib.contextmanager
def _recorded_interrupts() -> Iterator[List[int]]:
    """Yield a list of the SIGINTs received so far; each of them still raises KeyboardInterrupt."""
    received: List[int] = []

    def record(number: int, frame: Optional[FrameType]) -> None:
        received.append(number)
        signal.default_int_handler(number, frame)

    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield received
        return
    signal.signal(signal.SIGINT, record)
    try:
        yield received
    finally:
        if signal.getsignal(signal.SIGINT) is record:
            signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _termination_as_exception() -> Iterator[None]:
    """Raise Terminated on SIGTERM, so that temporary files are removed before the process ends."""

    def terminate(number: int, frame: Optional[FrameType]) -> None:
        raise Terminated

    main_thread = threading.current_thread() is threading.main_thread()
    if not main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
