"""Option types and decorators that the commands share."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any, Callable, Iterable, Optional, Sequence, TypeVar

import click

from robust_edge_runtimes.core.folders import owner_of
from robust_edge_runtimes.core.links import resolved
from robust_edge_runtimes.core.locks import locked
from robust_edge_runtimes.core.runtime import MAX_THREADS
from robust_edge_runtimes.modes.mode import Mode, options_of

F = TypeVar("F", bound=Callable[..., Any])
COUNT = click.IntRange(1, 2**31 - 1)
THREADS = click.option(
    "--threads",
    default=1,
    show_default=True,
    type=click.IntRange(1, MAX_THREADS),
    help="CPU threads of one inference.",
)


class Utf8Path(click.Path):
    """A path in UTF-8: libraries in C++ and Rust, such as ONNX Runtime and safetensors, open no other."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]) -> Path:
        """Fail for any other name before the work begins, which may end with a file of that name."""
        path = Path(str(super().convert(value, param, ctx)))
        try:
            str(path).encode()
        except UnicodeEncodeError:
            self.fail(f"{str(path)!r} is not UTF-8, and cannot be opened by all libraries; rename it", param, ctx)
        return path


BUNDLE = Utf8Path()


SPECIAL = [("dev",), ("proc",), ("sys",)]
SHARED_MEMORY = ("/", "dev", "shm")


class OutputFile(click.Path):
    """A file that a command writes at its end. Whether it can be written is checked before the work begins.

    A new file replaces an old one. So a link is followed, and what stands for an open file is refused: /dev/stdout
    would be replaced itself, for all programs of the machine.
    """

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: Optional[click.Parameter], ctx: Optional[click.Context]) -> Path:
        """Fail for a path that cannot be written, or that belongs to a bundle or a run."""
        path = Path(str(super().convert(value, param, ctx)))
        special = path.absolute().parts[1:2] in SPECIAL and path.absolute().parts[:3] != SHARED_MEMORY
        path = resolved(path) if path.is_symlink() and not special else path
        owner = owner_of(path)
        if owner is not None:
            self.fail(f"{str(path)!r} belongs to a bundle or a run, {owner}; choose another path", param, ctx)
        if special or (path.exists() and not path.is_file()):
            self.fail(
                f"{str(path)!r} is not a regular file and would be replaced by one; use --json to print to stdout",
                param,
                ctx,
            )
        if not path.absolute().parent.is_dir():
            self.fail(f"the folder {str(path.parent)!r} does not exist; create it, or choose another", param, ctx)
        if not os.access(str(path.absolute().parent), os.W_OK):  # a new file there replaces an old one
            self.fail(f"the folder {str(path.parent)!r} cannot be written to; choose another path", param, ctx)
        return path


OUTPUT_FILE = OutputFile()


def lock_outputs(*outputs: Optional[Path]) -> None:
    """Hold the locks of the outputs, of those that were given, until the running command ends.

    Raises:
        InputError: another process writes one of them.
    """
    for output in outputs:
        if output is not None:
            click.get_current_context().with_resource(locked(output))


def refuse_same_file(out: Optional[Path], junit: Optional[Path]) -> None:
    """Raise UsageError where `-o` and `--junit` name the same file: the second would overwrite the first."""
    if out is not None and junit is not None and out.absolute() == junit.absolute():
        raise click.UsageError(f"-o and --junit both name {str(out)!r}; choose another path for one of them")


def mode_options(modes: Iterable[Mode], *, with_quick: bool = False) -> Callable[[F], F]:
    """A decorator that adds the modes' options to a command, which receives each as an argument, None if not given.

    Args:
        modes: rows of a table of modes.
        with_quick: whether the command uses `quick` if no mode is named; the help text says so.
    """

    def decorate(command: F) -> F:
        for option in reversed(list(options_of(modes).values())):
            quick = f"; {option.quick} where no --mode is given" if with_quick and option.quick is not None else ""
            text = f"{option.help}.  [default: {option.default}{quick}]"
            command = click.option(f"--{option.name}", type=COUNT, help=text)(command)
        return command

    return decorate


def examples(*lines: str) -> Callable[[F], F]:
    """Append an examples section to a command's help text."""

    def decorate(command: F) -> F:
        shown: Sequence[str] = ["\b", "Examples:", *(f"  {line}" for line in lines)]
        command.__doc__ = inspect.cleandoc(command.__doc__ or "") + "\n\n" + "\n".join(shown)
        return command

    return decorate
