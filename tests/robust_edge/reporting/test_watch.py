"""When a watched report is written."""

import pytest

from robust_edge.config.settings import resolve
from robust_edge.reporting.watch import QUIET_SECONDS, SECONDS, watch
from robust_edge.run.directory import create_run

pytestmark = pytest.mark.quick


def test_a_page_for_every_change_until_all_runs_are_finished(tmp_path):
    runs = [create_run(tmp_path / name, resolve(), overwrite=False) for name in "ab"]
    first, second = (run.path for run in runs)
    (first / "checkpoint.json").write_text("{}")
    steps = iter(
        [
            lambda: None,
            lambda: (second / "metrics.jsonl").write_text("{}\n"),
            lambda: None,
            lambda: (second / "checkpoint.json").write_text("{}"),
        ]
    )
    written, pages = [], []

    def pause(seconds):
        pages.append(len(written))
        next(steps)()

    watch(runs, written.append, pause=pause)
    assert written == [True, True, False]
    assert pages == [1, 1, 2, 2], "nothing is written where nothing has changed"


def test_a_long_time_without_an_epoch_is_reported_once(tmp_path):
    run = create_run(tmp_path / "run", resolve(), overwrite=False)
    long, calls, pauses = int(QUIET_SECONDS / SECONDS), [], []

    def pause(seconds):
        pauses.append(seconds)
        if len(pauses) == long + 5:
            assert calls == [QUIET_SECONDS]
            (run.path / "metrics.jsonl").write_text("{}\n")
        if len(pauses) == 2 * long:
            (run.path / "checkpoint.json").write_text("{}")

    watch([run], lambda training: None, quiet=calls.append, pause=pause)
    assert calls == [QUIET_SECONDS], "the time counts from the last epoch"
