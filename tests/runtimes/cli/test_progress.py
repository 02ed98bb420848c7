from __future__ import annotations

import io

from robust_edge_runtimes.cli import progress as module
from robust_edge_runtimes.cli.output import Output
from robust_edge_runtimes.cli.progress import Progress


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_progress_on_a_terminal_is_one_line_that_ends(monkeypatch):
    screen, now = Screen(), [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    progress = Progress("work", screen)
    for done in range(1, 5):
        now[0] = done * 40.0
        progress(done, 4)
    shown = screen.getvalue().split("\r\033[K")[1:]
    assert len(shown) == 4
    assert "work 1/4  2m00s left" in shown[0]
    assert shown[0].count("█") == 5
    assert shown[3].endswith("work 4/4  2m40s\n")
    assert screen.getvalue().count("\n") == 1


def test_progress_elsewhere_is_a_line_now_and_then(monkeypatch):
    stream, now = io.StringIO(), [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    progress = Progress("work", stream, interval=10)
    for done in range(1, 101):
        now[0] = done * 1.0
        progress(done, 100, "loss 0.1")
    lines = stream.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0] == "work 10/100  1m30s left  loss 0.1"
    assert lines[-1] == "work 100/100  1m40s  loss 0.1"
    assert "\r" not in stream.getvalue()


def test_the_time_left_of_work_that_was_begun_before_counts_own_steps_only(monkeypatch):
    screen, now = Screen(), [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    progress = Progress("work", screen, begun=0.5)
    now[0] = 10.0
    progress(60, 100)  # ten steps of one second each; forty are left
    assert "work 60/100  40s left" in screen.getvalue()
    now[0] = 11.0
    progress(50, 100)
    assert "work 50/100  11s so far" in screen.getvalue()  # no step of its own says how long one takes


def test_the_first_call_may_give_what_was_done_before(monkeypatch):
    screen, now = Screen(), [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    progress = Progress("work", screen, begun=None)
    progress(50, 100)  # too early to be shown
    now[0] = 10.0
    progress(60, 100)
    assert "work 60/100  40s left" in screen.getvalue()


def test_silent_progress_writes_nowhere():
    Progress("work", None)(1, 1)
    Output(False, -1).progress("work")(1, 1)


def test_the_time_left_follows_work_that_becomes_slower(monkeypatch):
    """Fifty steps of one second, then ten seconds each: what is left takes ten seconds a step."""
    stream, now = io.StringIO(), [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    progress = Progress("work", stream, interval=1)
    for done in range(1, 66):
        now[0] += 1 if done <= 50 else 10
        progress(done, 70)
    assert stream.getvalue().splitlines()[-1] == "work 65/70  50s left"
