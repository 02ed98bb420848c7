"""The process that limits a command: time, memory, crashes and signals. Each case runs in a fork of this process."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from robust_edge_runtimes.cli import supervision
from robust_edge_runtimes.cli.command_line import CommandLine
from robust_edge_runtimes.cli.supervision import Limits, continue_in_worker, limit_options, memory_in_use
from robust_edge_runtimes.core import limits
from robust_edge_runtimes.core.environment import CONTAINER_MEMORY, available_memory
from robust_edge_runtimes.core.errors import BundleError, InputError
from robust_edge_runtimes.core.limits import COMPILATION, FIRST, SLOWER, Board, TimeLimit, report_to
from tests.commands import forked, running

click = pytest.importorskip("click")
if not sys.platform.startswith("linux"):
    pytest.skip("limits are enforced on Linux only", allow_module_level=True)

PLENTY = Limits(memory=1000, seconds=1000)


def more_memory(gigabytes):
    """A limit above what this process, and so its fork, has in use."""
    return memory_in_use(os.getpid()) / 1e9 + gigabytes


def ended(action, tmp_path, given=PLENTY):
    """Exit code and stderr of a supervised function."""

    def supervised():
        continue_in_worker(given)
        action()

    child = forked(supervised, errors=tmp_path / "errors")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, (tmp_path / "errors").read_text()


@pytest.mark.parametrize("code", [0, 1, 5, 143])
def test_the_exit_code_is_that_of_the_worker(code, tmp_path):
    assert ended(lambda: sys.exit(code), tmp_path) == (code, "")


def test_a_call_without_end(tmp_path):
    def hang():
        with TimeLimit("m.onnx", BundleError).opening():
            pass
        with TimeLimit("m.onnx", BundleError).call(7):
            time.sleep(60)

    start = time.monotonic()
    code, error = ended(hang, tmp_path, Limits(memory=1000, seconds=0.2))
    assert code == 4
    assert error == (
        "error: classifying 7 images by m.onnx did not end within 1.4 s; on a slow machine, raise --max-seconds\n"
    )
    assert time.monotonic() - start < 10


def test_time_between_calls_does_not_count(tmp_path):
    def many():
        limit = TimeLimit("m.onnx", BundleError)
        for _ in range(8):
            with limit.call(1):
                time.sleep(0.05)
        time.sleep(0.3)

    assert ended(many, tmp_path, Limits(memory=1000, seconds=0.25)) == (0, "")


def test_memory_inside_and_outside_a_call(tmp_path):
    def take():
        taken = [np.ones(1 << 20) for _ in range(1000)]
        time.sleep(60)
        return taken

    def take_inside():
        with TimeLimit("m.onnx", BundleError).opening():
            take()

    for action, code, text in ((take, 2, "error: this takes"), (take_inside, 4, "error: reading m.onnx takes")):
        found, error = ended(action, tmp_path, Limits(memory=more_memory(0.2), seconds=1000))
        assert (found, error.startswith(text), error.count("\n")) == (code, True, 1), error
        assert "raise --max-memory" in error


def test_memory_that_is_reserved_and_not_used_does_not_count(tmp_path):
    def reserve():
        reserved = np.empty(1 << 28)
        time.sleep(0.2)
        return reserved

    assert ended(reserve, tmp_path, Limits(memory=more_memory(0.5), seconds=1000)) == (0, "")


def test_memory_of_children_counts():
    before = memory_in_use(os.getpid())
    read, write = os.pipe()
    child = forked(lambda: os.read(read, 1), errors=Path(os.devnull))
    assert memory_in_use(os.getpid()) > 1.3 * before
    os.write(write, b"x")
    os.waitpid(child, 0)


def test_a_crash(tmp_path):
    def crash():
        faulthandler.disable()
        with TimeLimit("m.onnx", BundleError).call(1):
            ctypes.string_at(0)

    code, error = ended(crash, tmp_path)
    assert code == 4
    assert error == "error: classifying 1 image by m.onnx ended the process by SIGSEGV\n"
    code, error = ended(lambda: os.kill(os.getpid(), signal.SIGKILL), tmp_path)
    assert (code, error) == (2, "error: the process was killed (SIGKILL), as when memory runs out\n")
    code, error = ended(lambda: os.kill(os.getpid(), signal.SIGUSR1), tmp_path)
    assert (code, error) == (70, "error: internal error in robust-edge: the process ended by SIGUSR1\n")


def command_of(action):
    group = CommandLine("group")

    @group.command("act")
    @limit_options
    def act():
        action()

    return group


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("to_group", [False, True])
def test_signals_reach_the_worker_once(number, code, to_group, tmp_path):
    def act():
        (tmp_path / "started").touch()
        time.sleep(60)

    def action():
        os.setpgid(0, 0)
        sys.argv = ["group", "act"]
        command_of(act).main()

    child = forked(action, errors=tmp_path / "errors")
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    (os.killpg if to_group else os.kill)(child, number)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code
    assert (tmp_path / "errors").read_text().count("error: ") == 1


@pytest.mark.parametrize(("signals", "grace"), [([signal.SIGTERM], 0.2), ([signal.SIGINT, signal.SIGINT], 60)])
def test_a_worker_that_does_not_end_is_killed(signals, grace, tmp_path, monkeypatch):
    monkeypatch.setattr(supervision, "GRACE", grace)

    def stay():
        for number in set(signals):
            signal.signal(number, lambda *_: None)  # as while a library runs, which Python cannot interrupt
        (tmp_path / "started").touch()
        while True:
            time.sleep(60)

    def supervised():
        continue_in_worker(PLENTY)
        stay()

    child = forked(supervised, errors=tmp_path / "errors")
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    for number in signals:
        os.kill(child, number)
        time.sleep(0.1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signals[0]
    assert (tmp_path / "errors").read_text() == (
        f"error: the command did not end after {signals[0].name} and was killed\n"
    )


def test_temporary_files_of_a_worker_that_is_killed_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()

    def leave():
        folder = Path(tempfile.mkdtemp())
        assert Path(os.environ["TMPDIR"]) == folder.parent
        assert folder.parent.parent == tmp_path / "temporary"
        os.kill(os.getpid(), signal.SIGKILL)

    code, error = ended(leave, tmp_path)
    assert (code, "SIGKILL" in error) == (2, True), error
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_worker_ends_with_its_supervisor(tmp_path):
    def act():
        (tmp_path / "writing").write_text(str(os.getpid()))
        (tmp_path / "writing").rename(tmp_path / "worker")
        time.sleep(60)

    def action():
        continue_in_worker(PLENTY)
        act()

    child = forked(action, errors=tmp_path / "errors")
    while not (tmp_path / "worker").exists():
        time.sleep(0.01)
    worker = int((tmp_path / "worker").read_text())
    assert worker != child
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    end = time.monotonic() + 10
    while running(worker) and time.monotonic() < end:
        time.sleep(0.01)
    assert not running(worker)


@pytest.mark.parametrize("value", ["0", "-1", "nan"])
@pytest.mark.parametrize("option", ["--max-memory", "--max-seconds"])
def test_limits_are_above_zero(option, value, capsys):
    with pytest.raises(SystemExit) as error:
        command_of(lambda: None).main(["act", option, value])
    assert error.value.code == 2
    assert f"'{option}': it must be above 0; it is {value}" in capsys.readouterr().err


def test_no_worker_without_limits_or_in_a_program_that_calls_the_command(monkeypatch):
    seen = []
    group = command_of(lambda: seen.append(os.getpid()))
    for arguments in (["act"], ["act", "--max-seconds", "1"]):
        with pytest.raises(SystemExit):
            group.main(arguments)
    monkeypatch.setattr(sys, "argv", ["group", "act", "--max-memory", "inf", "--max-seconds", "inf"])
    with pytest.raises(SystemExit):
        group.main()
    assert seen == [os.getpid()] * 3


def test_limits_that_no_system_enforces_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SystemExit) as error:
        command_of(lambda: None).main(["act", "--max-memory", "1"])
    assert error.value.code == 2
    assert "on Linux only" in capsys.readouterr().err


@pytest.fixture
def board(monkeypatch):
    for name in ("_board", "_seconds", "_process"):
        monkeypatch.setattr(limits, name, getattr(limits, name))
    made = Board()
    report_to(made, 3.0)
    return made


def test_what_a_call_may_take(board):
    limit = TimeLimit("m.onnx", InputError)
    with limit.opening():
        assert (board.allowed, board.described) == (3.0, ("reading m.onnx", 2))
        with limit.call(5):
            assert board.described == ("reading m.onnx", 2)
        assert board.allowed == 3.0
    assert board.allowed == 0
    with limit.opening(compiles=True):
        assert board.allowed == 3.0 * COMPILATION
    limit = TimeLimit("m.onnx", BundleError)
    with limit.call(2):
        time.sleep(0.02)
        assert board.allowed == 2 * 3.0
    with TimeLimit("m.onnx", BundleError).call(20_000):
        assert board.allowed == FIRST * 3.0
    with limit.call(100):
        assert 3.0 + SLOWER * 100 * 0.01 <= board.allowed < 30
        assert board.described == ("classifying 100 images by m.onnx", 4)
    with limit.timing(2.0, 100):
        assert 3.0 + SLOWER * 2.0 < board.allowed < 30, "of the fastest call, which was the last"
    assert board.call == 6


def test_long_names_fit(board):
    with TimeLimit("ä" * 5000 + "\udcff", BundleError).opening():
        assert board.described[1] == 4
        assert len(board.described[0]) < 1001


def test_a_runtime_is_timed_on_one_image_first(board, Fake, make_manifest, linear, golden):
    calls = []

    def answer(images):
        calls.append((len(images), board.described[0], board.allowed))
        return linear.logits(images)

    with Fake(make_manifest(linear, golden, batch=None), answer) as model:
        model.infer(golden.clean)
    assert [(count, text) for count, text, _ in calls] == [
        (1, "classifying 1 image by fake.bin"),
        (1, "classifying 1 image by fake.bin"),
        (60, "classifying 60 images by fake.bin"),
    ]
    assert calls[2][2] > calls[0][2] == 3.0


def test_memory_that_is_available(tmp_path, monkeypatch):
    assert 1 << 26 < available_memory() < 1 << 50
    for text, expected in (("max\n", None), (f"{1 << 20}\n", 1 << 20)):
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr("robust_edge_runtimes.core.environment.CONTAINER_MEMORY", (str(tmp_path / "memory.max"),))
        assert expected is None or available_memory() == expected
    assert len(CONTAINER_MEMORY) == 2
