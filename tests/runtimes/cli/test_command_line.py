from __future__ import annotations

import errno
import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from robust_edge_runtimes.cli import failures
from robust_edge_runtimes.cli.command_line import CommandLine
from robust_edge_runtimes.core import extras
from robust_edge_runtimes.core.errors import (
    BackendUnavailable,
    BundleError,
    ExportError,
    InputError,
    RobustEdgeError,
)
from robust_edge_runtimes.core.extras import extra_of


def run(action, *arguments):
    """Run a command line whose only command does `action`."""

    @click.group(cls=CommandLine)
    def main():
        pass

    @main.command()
    @click.option("--count", type=click.IntRange(min=1))
    @click.pass_context
    def go(context, count):
        return action(context)

    return CliRunner().invoke(main, list(arguments) or ["go"], prog_name="tool")


def raising(error):
    def action(_):
        raise error

    return action


def one_line(result):
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    assert result.stdout == ""
    return lines[0]


@pytest.mark.parametrize(
    ("kind", "code"),
    [(RobustEdgeError, 2), (InputError, 2), (ExportError, 1), (BackendUnavailable, 3), (BundleError, 4)],
)
def test_each_error_is_one_line_and_its_exit_code(kind, code):
    result = run(raising(kind("several\nlines\n  of text")))
    assert result.exit_code == code
    assert one_line(result) == "error: several lines of text"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["og"], "No such command 'og'"),
        (["go", "--cuont", "1"], "No such option"),
        (["go", "--count", "0"], "0 is not in the range"),
        (["go", "--count", "ten"], "'ten' is not a valid integer"),
        (["go", "--count"], "requires an argument"),
        (["go", "more"], "unexpected extra argument"),
    ],
)
def test_usage_errors_are_one_line_and_exit_2(arguments, message):
    result = run(lambda _: None, *arguments)
    assert result.exit_code == 2
    assert message in one_line(result)
    if message != "requires an argument":  # click does not say which command misses it
        assert re.search(r"\(tool( go)? --help\)$", one_line(result))


def test_click_errors_without_a_usage_are_one_line():
    result = run(raising(click.ClickException("no luck")))
    assert (result.exit_code, one_line(result)) == (1, "error: no luck")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()])
def test_interruption_exits_130_in_one_line(error):
    result = run(raising(error))
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert "Traceback" not in result.stderr


WAITS = """
import signal, threading, time, click
signal.signal(signal.SIGINT, signal.default_int_handler)  # which the shell ignores in what it runs in the background
from robust_edge_runtimes.cli.command_line import CommandLine

@click.group(cls=CommandLine)
def main():
    pass

@main.command()
def wait():
    threading.Thread(target=time.sleep, args=(30,)).start()  # which the interpreter waits for at its end
    print(flush=True)
    time.sleep(30)

main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_command_that_waits_for_threads_without_a_traceback(number):
    command = [sys.executable, "-c", WAITS, "wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        process.send_signal(number)
        assert any(line.startswith("error: ") for line in iter(process.stderr.readline, ""))
        process.send_signal(number)
        assert process.wait(20) == -number
        assert process.stderr.read() == ""


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_to_be_full(number):
    result = run(raising(OSError(number, "No space left on device", "/out/model.onnx")))
    assert result.exit_code == 2
    assert one_line(result).startswith("error: no space left on the disk while writing /out/model.onnx; free some")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "no permission to use /x (Permission denied)"),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "no permission to use /x (Read-only file system)"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"), "No such file or directory: /x"),
        (OSError(errno.EFBIG, "File too large", "/x"), "a file /x would be larger than this process may write; raise"),
        (OSError(errno.EFBIG, "File too large"), "a file would be larger than this process may write; raise the limit"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), "No such file or directory"),
        (OSError("text only"), "text only"),
    ],
)
def test_errors_of_the_system_are_one_line_and_exit_2(error, message):
    result = run(raising(error))
    assert result.exit_code == 2
    assert message in one_line(result)


def test_a_working_directory_that_was_deleted_is_named(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    result = run(raising(FileNotFoundError(errno.ENOENT, "No such file or directory")))
    assert one_line(result) == "error: the working directory does not exist any more; change to another one"


def test_memory_that_is_not_there_is_one_line():
    result = run(raising(MemoryError("Unable to allocate 7.28 TiB")))
    assert result.exit_code == 2
    assert "out of memory" in one_line(result)
    assert "7.28 TiB" in one_line(result)
    assert one_line(run(raising(MemoryError()))).startswith("error: out of memory; use fewer images")


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("torch", "train"),
        ("torch.nn", "train"),
        ("onnxruntime", "onnxruntime"),
        ("yaml", "train"),
        ("captum", "interpret"),
    ],
)
def test_a_missing_extra_names_the_command_and_exits_3(module, extra):
    result = run(raising(ModuleNotFoundError(f"No module named {module!r}", name=module)))
    assert result.exit_code == 3
    assert one_line(result).startswith(f"error: this needs {module}, which is not installed: pip install")
    assert f"'robust-edge[{extra}]'" in one_line(result)


def test_on_an_old_python_the_training_extra_says_what_it_needs(monkeypatch):
    monkeypatch.setattr(failures.sys, "version_info", (3, 8, 10))
    for module, said in (("torch", True), ("onnxruntime", False)):
        result = run(raising(ModuleNotFoundError(name=module)))
        assert ("(Python 3.10 or newer)" in one_line(result)) is said


@pytest.mark.parametrize("name", ["robust_edge.nothing", "someones_package", None])
def test_a_module_of_no_extra_is_a_fault_and_keeps_its_traceback(name):
    result = run(raising(ModuleNotFoundError("No module named that", name=name)))
    assert result.exit_code == 70
    assert "ModuleNotFoundError" in result.stderr


def test_every_package_of_an_extra_is_known(monkeypatch):
    """What pyproject.toml lets a user leave out, the command line can name."""
    toml = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli", reason="reads pyproject.toml")
    project = toml.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    imports = {"scikit-learn": "sklearn", "pillow": "PIL", "pyyaml": "yaml", "onnxruntime-gpu": "onnxruntime"}
    requirements = [
        f"{package}; extra == '{extra}'"
        for extra, packages in project["optional-dependencies"].items()
        for package in packages
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: requirements)  # the installed ones may be older
    monkeypatch.setattr(extras, "_extras", extras._extras.__wrapped__)
    checked = set()
    for extra, packages in project["optional-dependencies"].items():
        if extra in ("dev", "all"):
            continue
        for package in packages:
            name = re.match(r"[\w.-]+", package).group()
            module = imports.get(name, name.replace("-", "_"))
            assert extra_of(module) in (extra, module), package  # onnxruntime is an extra of its own, too
            checked.add(module)
    assert {"torch", "onnxruntime", "yaml", "PIL"} <= checked


def test_a_library_that_cannot_be_loaded_exits_3():
    result = run(raising(ImportError("libtorch_cpu.so: failed to map segment from shared object")))
    assert result.exit_code == 3
    assert one_line(result).startswith("error: a library cannot be loaded here (libtorch_cpu.so: failed to map")


def test_exit_codes_of_commands_pass_through():
    for code in (0, 1, 7):
        assert run(lambda context, code=code: context.exit(code)).exit_code == code
    assert run(lambda _: None).exit_code == 0


def test_anything_else_is_a_fault_and_keeps_its_traceback():
    result = run(raising(ZeroDivisionError("ours")))
    assert result.exit_code == 70, "1 would read as a failed gate"
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: internal error in robust-edge")


def test_an_interrupt_that_a_library_turned_into_its_own_error_is_still_an_interrupt(request):
    # a test run in the background inherits an ignored SIGINT
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))

    def swallowing(_):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt as cause:
            raise ValueError("stage 2 failed") from cause

    result = run(swallowing)
    assert result.exit_code == 130
    assert one_line(result).startswith("error: interrupted; ")
    assert "run the same command again" in result.stderr


@pytest.mark.parametrize("text", ["DefaultCPUAllocator: can't allocate memory: you tried", "not enough memory: 9 GB"])
def test_the_allocators_own_errors_are_out_of_memory(text):
    result = run(raising(RuntimeError(f"[enforce fail] {text}")))
    assert result.exit_code == 2
    assert "out of memory" in one_line(result)


def test_a_reader_that_goes_away_is_no_traceback():
    script = (
        "import click\n"
        "from robust_edge_runtimes.cli.command_line import CommandLine\n"
        "@click.group(cls=CommandLine)\n"
        "def main(): pass\n"
        "@main.command()\n"
        "def go():\n"
        "    for _ in range(200000): click.echo('x' * 80)\n"
        "main(['go'])\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
