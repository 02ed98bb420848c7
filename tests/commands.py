"""Running the commands: in this process, which has imported everything, or as installed, as a user does."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner

ROOT = Path(__file__).parents[1]
COPIED = shutil.ignore_patterns("*.pyc.*")  # of a package: all but bytecode that another process is writing just now
MODULES = {"robust-edge": "robust_edge.cli", "robust-edge-device": "robust_edge_runtimes.cli.main"}


# One process for all commands, since each would import torch again.
COMMANDS = """
import json, sys
from click.testing import CliRunner
from robust_edge.cli import main
for line, code in json.load(sys.stdin):
    result = CliRunner().invoke(main, line.split())
    print(result.output)
    assert result.exit_code == code, line
"""


@dataclasses.dataclass(frozen=True)
class Finished:
    """What a command wrote, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


def run(*words: str | Path, cwd: Path | None = None, expect: int = 0) -> Finished:
    """Run `robust-edge ...` or `robust-edge-device ...` in this process and check the exit code."""
    module = __import__(MODULES[str(words[0])], fromlist=["main"])
    before = Path.cwd()
    os.chdir(cwd or before)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            result = CliRunner().invoke(module.main, [str(word) for word in words[1:]])
    finally:
        os.chdir(before)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return _checked(words, Finished(result.exit_code, result.stdout, result.stderr), expect)


def run_installed(*words: str | Path, cwd: Path | None = None, expect: int = 0) -> Finished:
    """The same through the installed script, in a process of its own."""
    name, *rest = (str(word) for word in words)
    script = Path(sys.executable).parent / name
    command = [str(script)] if script.is_file() else [sys.executable, "-c", f"from {MODULES[name]} import main; main()"]
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    done = subprocess.run([*command, *rest], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    return _checked(words, Finished(done.returncode, done.stdout, done.stderr), expect)


def forked(action: Callable[[], object], *, errors: Path) -> int:
    """Start a function in a fork of this process, which has imported everything; returns its process id.

    Its exit code is that of SystemExit, otherwise 0; 99 for any other exception. What it writes to stdout is lost.

    Args:
        action: the function.
        errors: file for what it writes to stderr.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside the threads of other tests
        child = os.fork()
    if child:
        return child
    code = 99
    try:
        for number, path in ((1, os.devnull), (2, errors)):
            os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background ignores it
        action()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        sys.stderr.flush()
        os._exit(code)


def running(process: int) -> bool:
    """Whether a process exists and is no zombie, which nobody may reap in a container."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def run_forked(*words: str | Path, errors: Path, expect: int) -> str:
    """Run a command in a fork of this process as if it had been called by its name; returns what it wrote to stderr."""
    module = __import__(MODULES[str(words[0])], fromlist=["main"])

    def action() -> None:
        sys.argv = [str(word) for word in words]
        module.main()

    code = os.waitstatus_to_exitcode(os.waitpid(forked(action, errors=errors), 0)[1])
    return _checked(words, Finished(code, "", errors.read_text()), expect).stderr


def run_lines(lines: list[str], *, cwd: Path, package: Path | None = None, refused: tuple[str, ...] = ()) -> str:
    """Run `robust-edge LINE` for each line; returns all that they wrote, with single spaces.

    Args:
        lines: must end with exit code 0.
        cwd: the working directory.
        package: folder that holds another copy of `robust_edge`, which a process of its own then runs.
        refused: further lines, which must end with exit code 2.
    """
    calls = [*((line, 0) for line in lines), *((line, 2) for line in refused)]
    if package is None:
        done = [run("robust-edge", *line.split(), cwd=cwd, expect=code) for line, code in calls]
        return " ".join(" ".join(item.stdout + item.stderr for item in done).split())
    path = os.pathsep.join(map(str, (package, ROOT / "exporters", ROOT / "runtimes")))
    finished = subprocess.run(
        [sys.executable, "-c", COMMANDS], input=json.dumps(calls), text=True, cwd=cwd, check=False,
        capture_output=True, env={**os.environ, "PYTHONPATH": path, "PYTHONWARNINGS": "default"},
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return " ".join(finished.stdout.split())


def _checked(words: tuple[str | Path, ...], done: Finished, expect: int) -> Finished:
    called = " ".join(map(str, words))
    assert done.returncode == expect, f"{called}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
