from __future__ import annotations

import errno
import json
import multiprocessing
import os
import threading
import warnings
from pathlib import Path

import pytest

from robust_edge_runtimes.core import files, locks
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import remove_leftovers, temporary_folder, write_atomic
from robust_edge_runtimes.core.folders import new_directory
from robust_edge_runtimes.core.locks import locked

FORK = multiprocessing.get_context("fork")


def hold(path, reached, released):
    with locked(path):
        reached.set()
        released.wait(60)


def write(folder, reached, released):
    """Write a folder and a file, and stop in the middle of both."""

    def wait(_):
        reached.set()
        released.wait(60)

    os.fsync = wait  # in this process only
    with new_directory(folder / "bundle"):
        write_atomic(folder / "verify.json", "half")


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def fork(action, *arguments):
    """Start a process."""
    process = FORK.Process(target=action, args=arguments, daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside the threads of other tests
        process.start()
    return process


def fork_here():
    """As os.fork, with warnings about the threads of other tests ignored."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


@pytest.fixture
def start():
    """start(action, path): a process that has come to its critical moment; its `released.set()` lets it go on."""
    started = []

    def run(action, path):
        reached, released = FORK.Event(), FORK.Event()
        process = fork(action, path, reached, released)
        process.released = released
        started.append(process)
        assert reached.wait(20)
        return process

    yield run
    for process in started:
        kill(process)


def kill(process):
    process.kill()
    process.join()


@pytest.mark.parametrize("kind", ["file", "folder", "nothing", "link"])
def test_a_second_process_is_refused_in_one_line_that_says_who_writes(tmp_path, start, kind):
    out = tmp_path / "out"
    {"file": out.touch, "folder": out.mkdir, "nothing": lambda: None, "link": lambda: out.symlink_to("real")}[kind]()
    other = start(hold, out.resolve())
    with pytest.raises(InputError) as caught, locked(out):
        pytest.fail("entered")
    message = str(caught.value)
    assert message.startswith(f"{out.resolve()} is being written by ")
    assert f"process {other.pid} on " in message
    assert "\n" not in message
    other.released.set()
    other.join()
    with locked(out) as held:
        assert held
    assert not [name for name in listing(tmp_path) if name.endswith(".lock")]


def test_the_lock_of_a_killed_process_is_free(tmp_path, start):
    kill(start(hold, tmp_path / "out"))
    assert listing(tmp_path) == [".out.lock"]
    with locked(tmp_path / "out"):
        assert json.loads((tmp_path / ".out.lock").read_text())["pid"] == os.getpid()
    assert listing(tmp_path) == []


def test_the_thread_that_holds_a_lock_may_enter_again_and_no_other(tmp_path):
    refused = []

    def other():
        try:
            with locked(tmp_path / "out"):
                pytest.fail("entered")
        except InputError as error:
            refused.append(error)

    with locked(tmp_path / "out"):
        with locked(tmp_path / "out"):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert listing(tmp_path) == []


def test_a_fork_of_the_holder_is_another_process(tmp_path):
    before, refused = os.getpid(), False
    try:
        with locked(tmp_path / "out"):
            process = fork_here()
            if process == 0:
                with pytest.raises(InputError), locked(tmp_path / "out"):
                    pytest.fail("entered")
                refused = True
                raise SystemExit  # leaves the block of the holder
            assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 3
            assert listing(tmp_path) == [".out.lock"]
    finally:
        if os.getpid() != before:
            os._exit(3 if refused else 4)
    assert listing(tmp_path) == []


def test_the_lock_of_another_writer_is_left_where_ones_own_was_deleted(tmp_path, start):
    with locked(tmp_path / "out"):
        (tmp_path / ".out.lock").unlink()
        other = start(hold, tmp_path / "out")
    assert listing(tmp_path) == [".out.lock"]
    other.released.set()
    other.join()
    assert listing(tmp_path) == []


def test_places_without_an_output_are_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path / "loop" / "out"):
        for use in (locked, new_directory):
            with pytest.raises(InputError, match="its symbolic links form a loop"), use(path):
                pytest.fail("entered")
    with pytest.raises(InputError, match="/ is the root of the file system"), locked(Path("/")):
        pytest.fail("entered")


def test_parents_are_created_and_removed_if_nothing_was_written(tmp_path):
    with locked(tmp_path / "a" / "b" / "out"):
        assert listing(tmp_path / "a" / "b") == [".out.lock"]
    assert listing(tmp_path) == []
    with locked(tmp_path / "a" / "b" / "out"):
        (tmp_path / "a" / "b" / "out").touch()
    assert listing(tmp_path / "a" / "b") == ["out"]


def test_a_lock_file_that_says_nothing_useful_is_a_lock_all_the_same(tmp_path, start):
    start(hold, tmp_path / "out")
    for content in (b"", b"[]", b"\xff", json.dumps({"command": "\x1b[2J" * 999}).encode()):
        (tmp_path / ".out.lock").write_bytes(content)
        with pytest.raises(InputError, match=r"another command, which holds \.out\.lock"), locked(tmp_path / "out"):
            pytest.fail("entered")
    described = dict.fromkeys(("user", "host", "pid", "since", "command"), "\x1b\n" + "x" * 900)
    (tmp_path / ".out.lock").write_text(json.dumps(described))
    with pytest.raises(InputError) as caught, locked(tmp_path / "out"):
        pytest.fail("entered")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_a_name_that_leaves_no_room_for_temporary_files_is_refused_before_the_work(tmp_path):
    for length, allowed in ((241, True), (242, False)):
        path = tmp_path / ("x" * length)
        if allowed:
            with locked(path):
                write_atomic(path, "")
        else:
            with pytest.raises(InputError, match="has 242 bytes; choose one of at most 241"), locked(path):
                pytest.fail("entered")


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_and_removes_nothing(tmp_path, monkeypatch, number):
    import fcntl

    def none(*_):
        raise OSError(number, os.strerror(number))

    (tmp_path / ".out.abcdefgh.tmp").touch()
    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.warns(UserWarning, match=r"has no file locks \(NFS.*writing out$"), locked(tmp_path / "out") as held:
        assert not held
    remove_leftovers(tmp_path)
    assert listing(tmp_path) == [".out.abcdefgh.tmp"]


def test_a_full_disk_is_an_error_before_the_work(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(locks.os, "write", full)
    with pytest.raises(OSError, match="No space left"), locked(tmp_path / "out"):
        pytest.fail("entered")
    assert listing(tmp_path) == []


def test_in_a_read_only_folder_the_output_folder_itself_is_locked(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    opened = os.open

    def refuse(path, flags, mode=0o777):  # root may write anywhere
        if str(path).endswith(".lock"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, flags, mode)

    monkeypatch.setattr(locks.os, "open", refuse)
    with locked(tmp_path / "out"):
        assert files.try_lock(opened(tmp_path / "out", os.O_RDONLY)) is False
    with pytest.raises(PermissionError), locked(tmp_path / "file"):
        pytest.fail("entered")


def test_of_a_killed_writer_nothing_is_left_by_the_next_and_of_a_living_one_all(tmp_path, start):
    alive, dead = tmp_path / "alive", tmp_path / "dead"
    for folder in (alive, dead):
        folder.mkdir()
    processes = [start(write, alive), start(write, dead)]
    kill(processes[1])
    assert len(listing(dead)) == 3  # two temporary names, and the lock
    for folder in (alive, dead):
        write_atomic(folder / "verify.json", "whole")
    with pytest.raises(InputError), new_directory(alive / "bundle"):
        pytest.fail("entered")
    assert len(listing(alive)) == 4
    with new_directory(dead / "bundle") as fresh:
        (fresh / "f").touch()
    assert listing(dead) == ["bundle", "verify.json"]


def test_a_bundle_that_a_killed_writer_had_moved_aside_comes_back(tmp_path):
    aside = tmp_path / ".out.abcdefgh.old" / "out"
    aside.mkdir(parents=True)
    (aside / "f").write_text("old")
    with pytest.raises(InputError, match="pass `overwrite`"), new_directory(tmp_path / "out"):
        pytest.fail("entered")
    assert (tmp_path / "out" / "f").read_text() == "old"
    assert listing(tmp_path) == ["out"]


@pytest.mark.parametrize("suffix", ["tmp", "old"])
def test_links_and_files_with_the_names_of_leftovers_are_left_alone(tmp_path, suffix):
    (tmp_path / "mine").mkdir()
    (tmp_path / f".out.link.{suffix}").symlink_to("mine")
    (tmp_path / f".out.file.{suffix}").touch()
    before = listing(tmp_path)
    with new_directory(tmp_path / "out"):
        pass
    assert listing(tmp_path) == [*before, "out"]


def take(path, ready, counted):
    """Enter the lock as the other process does; count the entries."""
    for _ in range(20):
        ready.wait()
        try:
            with locked(path):
                counted.put("entered")
                ready.wait()
        except InputError:
            counted.put("refused")
            ready.wait()
        ready.wait()


def test_of_two_processes_at_once_exactly_one_enters(tmp_path):
    ready, counted = FORK.Barrier(2), FORK.Queue()
    pair = [fork(take, tmp_path / "out", ready, counted) for _ in range(2)]
    outcomes = [counted.get(timeout=20) for _ in range(40)]
    for process in pair:
        process.join()
    assert outcomes.count("entered") == 20
    assert listing(tmp_path) == []


def hold_folder(path, reached, released):
    with temporary_folder(path, "out") as folder:
        (folder / "half").touch()
        reached.set()
        released.wait(60)


def test_temporary_folders_of_killed_processes_are_removed_and_those_of_living_ones_kept(tmp_path, start):
    alive, dead = start(hold_folder, tmp_path), start(hold_folder, tmp_path)
    kill(dead)
    (tmp_path / ".out.link.tmp").symlink_to(tmp_path)
    (tmp_path / ".out2.abcdefgh.tmp").mkdir()
    assert len(listing(tmp_path)) == 4
    with temporary_folder(tmp_path, "out") as folder:
        assert len(listing(tmp_path)) == 4
        assert list(folder.iterdir()) == []
    alive.released.set()
    alive.join()
    assert listing(tmp_path) == [".out.link.tmp", ".out2.abcdefgh.tmp"]


def test_special_files_are_no_leftovers(tmp_path):
    os.mkfifo(tmp_path / ".f.abcdefgh.tmp")
    (tmp_path / ".g.abcdefgh.tmp").symlink_to("nothing")
    (tmp_path / ".h.abcdefgh.tmp").touch()
    remove_leftovers(tmp_path)
    assert listing(tmp_path) == [".f.abcdefgh.tmp", ".g.abcdefgh.tmp"]
