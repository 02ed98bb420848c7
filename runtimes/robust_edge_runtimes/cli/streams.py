"""Standard streams that are closed, that nobody reads, or whose disk is full: no exit code depends on them."""

from __future__ import annotations

import contextlib
import os
import select
import sys

import click


def open_missing_streams() -> None:
    """Open /dev/null where a standard stream is closed, so that the next file that is opened does not get its number.

    Characters that the encoding of a stream lacks, as in the C locale, are written as escapes.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def print_error(text: str) -> None:
    """Print a line on stderr, if that can be written."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)


def discard_stdout() -> None:
    """Send what stdout still holds and gets to /dev/null; otherwise the interpreter fails to write it at its exit."""
    with contextlib.suppress(OSError, ValueError):  # a stdout without a number, as in tests
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def reader_is_gone() -> bool:
    """Whether stdout is a pipe that its reader has closed."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # no poll on this platform, or no number
        return False
