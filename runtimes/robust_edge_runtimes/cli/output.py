"""The output of a command: its result on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import sys
from typing import Any, Callable, Iterator, NoReturn, Optional, TypeVar

import click

from robust_edge_runtimes.cli.progress import Progress
from robust_edge_runtimes.cli.streams import discard_stdout, print_error

F = TypeVar("F", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class Output:
    """Writes a command's result to stdout and everything else to stderr.

    Attributes:
        json: print the result as JSON instead of text.
        verbosity: -1 quiet, 0 normal, 1 verbose.
    """

    json: bool
    verbosity: int

    def note(self, text: str) -> None:
        """Print a line on stderr unless --quiet is given."""
        if self.verbosity >= 0:
            print_error(text)

    def detail(self, text: str) -> None:
        """Print a line on stderr if --verbose is given."""
        if self.verbosity >= 1:
            print_error(text)

    def result(self, text: str, value: Any) -> None:
        """Print the command's result: `text`, or with --json `value` (plain values or a dataclass).

        Where stdout is a pipe that nobody reads any more, nothing is printed.

        Raises:
            OSError: stdout cannot be written, as on a full disk.
        """
        plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
        try:
            click.echo(json.dumps(plain, indent=2, allow_nan=False) if self.json else text)
        except BrokenPipeError:
            discard_stdout()

    @contextlib.contextmanager
    def kept(self, text: str, value: Any) -> Iterator[None]:
        """Print the result, as `result` does, where the block cannot write it to a file: it may have taken hours."""
        try:
            yield
        except OSError:
            with contextlib.suppress(OSError):
                self.result(text, value)
            raise

    def verdict(self, text: str, value: Any, context: click.Context, code: int) -> NoReturn:
        """Print the result as `result` does and exit with its code, which stands even if stdout cannot be written."""
        try:
            self.result(text, value)
        except OSError as error:
            discard_stdout()
            print_error(f"note: the result could not be printed ({error.strerror})")
        context.exit(code)

    def progress(self, label: str, *, begun: Optional[float] = 0.0) -> Progress:
        """A progress display on stderr, silent with --quiet; `begun` as in Progress."""
        return Progress(label, sys.stderr if self.verbosity >= 0 else None, begun=begun)


def output_options(command: F) -> F:
    """Add --json, -v and -q to a command, which receives them as `output: Output`."""

    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
    @click.option("-v", "--verbose", is_flag=True, help="Print more on stderr.")
    @click.option("-q", "--quiet", is_flag=True, help="Print only the result and errors.")
    @functools.wraps(command)
    def wrapped(*args: Any, as_json: bool, verbose: bool, quiet: bool, **kwargs: Any) -> Any:
        return command(*args, output=Output(as_json, int(verbose) - int(quiet)), **kwargs)

    return wrapped  # type: ignore[return-value]
