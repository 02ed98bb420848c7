"""How a command ends when something goes wrong: one line on stderr and the documented exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Any, Callable, Optional, Sequence, Tuple

import click

from robust_edge_runtimes.cli.streams import print_error, reader_is_gone
from robust_edge_runtimes.core.decode import visible
from robust_edge_runtimes.core.errors import BackendUnavailable, RobustEdgeError
from robust_edge_runtimes.core.extras import extra_of

MOST = 900
INTERRUPTED = 130
TERMINATED = 143
INTERNAL = 70  # EX_SOFTWARE of sysexits.h
HOW_TO_CONTINUE = "all written files are complete; run the same command again (compress: with --resume)"


class Terminated(BaseException):
    """The process received SIGTERM."""


def report_failure(error: BaseException) -> int:
    """Print why a command ended and return its exit code. Only an internal error is printed with its traceback."""
    if isinstance(error, SystemExit) and isinstance(error.__context__, BrokenPipeError):
        error = error.__context__  # click turns it into exit code 1, which would read as a failed check
    if isinstance(error, BrokenPipeError) and reader_is_gone():
        return 0
    if type(error).__name__ == "NoArgsIsHelpError":  # click 8.2 and newer; the help text keeps its lines
        print_error(error.format_message())  # type: ignore[attr-defined]
        return RobustEdgeError.exit_code
    for classes, code, message_of in _FAILURES:
        message = message_of(error) if isinstance(error, classes) else None
        if message is not None:
            print_failure(message)
            return code if code is not None else int(getattr(error, "exit_code", RobustEdgeError.exit_code))
    if isinstance(error, SystemExit):
        raise error
    print_error("".join(traceback.format_exception(type(error), error, error.__traceback__)).rstrip())
    print_failure(f"internal error in robust-edge ({type(error).__name__}); please report it with the lines above")
    return INTERNAL


def print_failure(text: str) -> None:
    """Print the one line of an error on stderr; of more than MOST characters, the middle is left out."""
    line = visible(" ".join(text.split()))
    cut = line if len(line) <= MOST else f"{line[: MOST // 2]} ... {line[-MOST // 2 :]}"
    print_error("error: " + cut)


def _usage(error: click.UsageError) -> str:
    return error.format_message() + (f" ({error.ctx.command_path} --help)" if error.ctx else "")


def _missing_module(error: ModuleNotFoundError) -> Optional[str]:
    extra = extra_of(error.name or "")
    if extra is None:
        return None
    python = " (Python 3.10 or newer)" if extra == "train" and sys.version_info < (3, 10) else ""
    return f"this needs {error.name}, which is not installed: pip install 'robust-edge[{extra}]'{python}"


def _broken_library(error: ImportError) -> Optional[str]:
    """Recognise a compiled library that cannot be loaded, on Linux, macOS or Windows."""
    text = str(error)
    if not any(phrase in text for phrase in ("shared object", "dlopen(", "DLL load failed")):
        return None
    return f"a library cannot be loaded here ({text}): install it again, or raise the limit on memory (ulimit -v)"


def _out_of_memory(error: BaseException) -> Optional[str]:
    """Recognise MemoryError, and a RuntimeError of torch's allocators by its text."""
    text = str(error)
    known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if not known and "can't allocate memory" not in text and "not enough memory" not in text:
        return None
    first = text.splitlines()[0] if text else ""
    return f"out of memory{first and ' '}{first}; use fewer images at a time, or a larger machine"


def _os_error(error: OSError) -> str:
    where = f" {error.filename}" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left on the disk while writing{where}; free some space, or choose another -o"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"no permission to use{where} ({error.strerror}); choose another path, or change its permissions"
    if error.errno == errno.EFBIG:
        return f"a file{where} would be larger than this process may write; raise the limit (ulimit -f)"
    if error.errno == errno.ENOENT and not where and _working_directory_is_gone():
        return "the working directory does not exist any more; change to another one"
    return f"{error.strerror or error}{':' if where else ''}{where}"


def _working_directory_is_gone() -> bool:
    try:
        os.getcwd()  # noqa: PTH109 - the same
    except FileNotFoundError:
        return True
    return False


_FAILURES: Sequence[Tuple[Any, Optional[int], Callable[[Any], Optional[str]]]] = (
    (click.UsageError, None, _usage),
    (click.ClickException, None, lambda error: error.format_message()),
    (RobustEdgeError, None, str),
    ((click.Abort, KeyboardInterrupt), INTERRUPTED, lambda _: f"interrupted; {HOW_TO_CONTINUE}"),
    (Terminated, TERMINATED, lambda _: f"terminated; {HOW_TO_CONTINUE}"),
    (ModuleNotFoundError, BackendUnavailable.exit_code, _missing_module),
    (ImportError, BackendUnavailable.exit_code, _broken_library),
    ((MemoryError, RuntimeError), RobustEdgeError.exit_code, _out_of_memory),
    (OSError, RobustEdgeError.exit_code, _os_error),
)
"""Exception classes, exit code (None: the exception's own) and message (None: try the following rows)."""
