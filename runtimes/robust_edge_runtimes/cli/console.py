"""What every command line of the project shares: one-line errors, exit codes, progress, --json."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import inspect
import json
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any, Callable, Iterator, List, NoReturn, Optional, Sequence, TextIO, Tuple, TypeVar

import click

from robust_edge_runtimes.core.errors import BackendUnavailable, RobustEdgeError
from robust_edge_runtimes.core.extras import extra_of

F = TypeVar("F", bound=Callable[..., Any])
INTERRUPTED = 130
TERMINATED = 143
INTERNAL = 70  # EX_SOFTWARE of sysexits.h
GO_ON = "files under their final names are whole; give the same command again, compress with --resume"


class Terminated(BaseException):
    """The process was asked to end, by SIGTERM."""


class CommandLine(click.Group):
    """A click group that ends every user's mistake in one line and the documented exit code."""

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run a command and leave with its exit code."""
        kwargs["standalone_mode"] = False
        with _noting_interrupts() as interrupts, _minding_termination():
            try:
                code = super().main(*args, **kwargs)
                sys.stdout.flush()
            except BaseException as error:
                # a library may catch the interrupt and raise an error of its own
                code = _end(KeyboardInterrupt() if interrupts else error)
        sys.exit(code if isinstance(code, int) else 0)


@contextlib.contextmanager
def _noting_interrupts() -> Iterator[List[int]]:
    """A list that fills when Ctrl-C is pressed, which interrupts the work as ever."""
    seen: List[int] = []

    def note(number: int, frame: Optional[FrameType]) -> None:
        seen.append(number)
        signal.default_int_handler(number, frame)

    usual = threading.current_thread() is threading.main_thread()
    if not usual or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield seen
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _minding_termination() -> Iterator[None]:
    """SIGTERM ends the work as Ctrl-C does, so that half-written files go, instead of ending it on the spot."""

    def end(number: int, frame: Optional[FrameType]) -> None:
        raise Terminated

    usual = threading.current_thread() is threading.main_thread()
    if not usual or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(error: BaseException) -> int:
    """Say in one line why a command ended, and give its exit code; what is our fault keeps its traceback."""
    if isinstance(error, BrokenPipeError):
        sys.stderr.close()
        return 0
    if type(error).__name__ == "NoArgsIsHelpError":  # click 8.2 and newer; the help text keeps its lines
        click.echo(error.format_message(), err=True)  # type: ignore[attr-defined]
        return RobustEdgeError.exit_code
    for kinds, code, text in _ENDINGS:
        if isinstance(error, kinds):
            said = text(error)
            if said is not None:
                _say(said)
                return code if code is not None else int(getattr(error, "exit_code", RobustEdgeError.exit_code))
    if isinstance(error, SystemExit):
        raise error
    traceback.print_exception(type(error), error, error.__traceback__)
    _say(f"this is a mistake of robust-edge, not yours ({type(error).__name__}); please report the lines above")
    return INTERNAL


class OutputFile(click.Path):
    """A file to write at the end: its folder is looked for before the work begins."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]) -> Path:
        """Refuse a path that could not be written."""
        path = Path(str(super().convert(value, param, ctx)))
        if (path.parent / "SHA256SUMS").exists() or (path.exists() and (path.parent / "config.yaml").exists()):
            self.fail(f"{str(path)!r} lies in a bundle or is a run's own file; choose another", param, ctx)
        if path.exists() and not path.is_file():
            self.fail(f"{str(path)!r} is no ordinary file, and would become one; --json prints to stdout", param, ctx)
        if not path.absolute().parent.is_dir():
            self.fail(f"the folder {str(path.parent)!r} does not exist; make it first, or choose another", param, ctx)
        return path


OUTPUT_FILE = OutputFile()


def refuse_one_for_both(out: Optional[Path], junit: Optional[Path]) -> None:
    """Raise UsageError where `-o` and `--junit` name the same file, of which only one would be left."""
    if out is not None and junit is not None and out.absolute() == junit.absolute():
        raise click.UsageError(f"-o and --junit both name {str(out)!r}; choose another for one of them")


@dataclasses.dataclass(frozen=True)
class Output:
    """Where a command speaks: results to stdout, everything else to stderr.

    Attributes:
        json: the result as JSON instead of text.
        verbosity: -1 quiet, 0 normal, 1 verbose.
    """

    json: bool
    verbosity: int

    def note(self, text: str) -> None:
        """A line on stderr unless --quiet."""
        if self.verbosity >= 0:
            click.echo(text, err=True)

    def detail(self, text: str) -> None:
        """A line on stderr with --verbose."""
        if self.verbosity >= 1:
            click.echo(text, err=True)

    def result(self, text: str, value: Any) -> None:
        """The command's answer: `text` for a person, or `value` (plain or a dataclass) with --json."""
        plain = dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
        click.echo(json.dumps(plain, indent=2, allow_nan=False) if self.json else text)

    def progress(self, label: str, *, begun: float = 0.0) -> Progress:
        """A progress display on stderr, silent with --quiet; `begun` as of Progress."""
        return Progress(label, sys.stderr if self.verbosity >= 0 else None, begun=begun)


class Progress:
    """Call it with (done, total): a bar with the time left on a terminal, a line now and then elsewhere.

    `begun` is the share of the whole that an earlier process did, in none of this one's time.
    """

    def __init__(self, label: str, stream: Optional[TextIO], *, interval: float = 10.0, begun: float = 0.0) -> None:
        self._label = label
        self._begun = begun
        self._stream = stream
        self._terminal = stream is not None and stream.isatty()
        self._interval = 0.1 if self._terminal else interval
        self._start = self._last = time.monotonic()

    def __call__(self, done: int, total: int, detail: str = "") -> None:
        """Show that `done` of `total` steps are over."""
        now = time.monotonic()
        finished = done >= total
        if self._stream is None or (now - self._last < self._interval and not finished):
            return
        self._last = now
        elapsed = now - self._start
        own = done - self._begun * total
        left = elapsed / own * (total - done) if own > 0 else 0.0
        when = f"{_duration(elapsed)}" if finished else f"{_duration(left)} left"
        text = f"{self._label} {done}/{total}  {when}  {detail}".rstrip()
        if self._terminal:
            self._stream.write(f"\r\033[K{_bar(done / max(total, 1))} {text}" + ("\n" if finished else ""))
        else:
            self._stream.write(text + "\n")
        self._stream.flush()


def output_options(command: F) -> F:
    """Give a command --json, -v and -q, and pass them on as `output: Output`."""

    @click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
    @click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
    @click.option("-q", "--quiet", is_flag=True, help="Say nothing but the result and errors.")
    @functools.wraps(command)
    def wrapped(*args: Any, as_json: bool, verbose: bool, quiet: bool, **kwargs: Any) -> Any:
        return command(*args, output=Output(as_json, int(verbose) - int(quiet)), **kwargs)

    return wrapped  # type: ignore[return-value]


def examples(*lines: str) -> Callable[[F], F]:
    """Append an examples section to a command's help text."""

    def decorate(command: F) -> F:
        shown: Sequence[str] = ["\b", "Examples:", *(f"  {line}" for line in lines)]
        command.__doc__ = inspect.cleandoc(command.__doc__ or "") + "\n\n" + "\n".join(shown)
        return command

    return decorate


def _bar(fraction: float) -> str:
    filled = int(20 * min(fraction, 1.0))
    return "█" * filled + "░" * (20 - filled)


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def _missing_extra(error: ModuleNotFoundError, extra: str) -> str:
    old = extra == "train" and sys.version_info < (3, 10)
    remedy = " (Python 3.10 or newer)" if old else ""
    return f"this needs {error.name}, which is not installed: pip install 'robust-edge[{extra}]'{remedy}"


def _os_error(error: OSError) -> str:
    where = f" {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk while writing{where}; free some, or choose another -o"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"not allowed to use{where} ({error.strerror}); choose another path, or change its permissions"
    return f"{error.strerror or error}{':' if where else ''}{where}"


def _say(text: str) -> None:
    click.echo("error: " + " ".join(text.split()), err=True)


def _usage(error: click.UsageError) -> str:
    return error.format_message() + (f" ({error.ctx.command_path} --help)" if error.ctx else "")


def _module(error: ModuleNotFoundError) -> Optional[str]:
    extra = extra_of(error.name or "")
    return None if extra is None else _missing_extra(error, extra)


def _memory(error: BaseException) -> Optional[str]:
    """Python's own error, or the text that torch's allocators put into a RuntimeError."""
    text = str(error)
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if not known and "can't allocate memory" not in text and "not enough memory" not in text:
        return None
    return (
        f"out of memory {text.splitlines()[0] if text else ''}; ask for fewer images at a time, or use a larger machine"
    )


_ENDINGS: Sequence[Tuple[Any, Optional[int], Callable[[Any], Optional[str]]]] = (
    (click.UsageError, None, _usage),
    (click.ClickException, None, lambda error: error.format_message()),
    (RobustEdgeError, None, str),
    (
        (click.Abort, KeyboardInterrupt),
        INTERRUPTED,
        lambda _: f"interrupted; {GO_ON}",
    ),
    (
        Terminated,
        TERMINATED,
        lambda _: f"terminated; {GO_ON}",
    ),
    (ModuleNotFoundError, BackendUnavailable.exit_code, _module),
    ((MemoryError, RuntimeError), RobustEdgeError.exit_code, _memory),
    (OSError, RobustEdgeError.exit_code, _os_error),
)
"""What a command may end with: exception classes, exit code (None for the exception's own), the line to say (None: not
this one after all)."""
