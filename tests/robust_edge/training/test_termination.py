"""SIGTERM in the middle of an epoch: what was done is saved, and goes on to the same bytes."""

import dataclasses
import functools
import io
import signal

import pytest
import torch

from robust_edge.parallel.ranks import Ranks
from robust_edge.run.directory import open_run
from robust_edge.training import loop as module
from robust_edge.training.compress import compress, resume
from robust_edge.training.epoch import EpochPart
from robust_edge.training.termination import deferred_termination
from robust_edge_runtimes.cli.progress import Progress
from robust_edge_runtimes.core.errors import InputError, TrainingDiverged

RESULTS = ("checkpoint.safetensors", "checkpoint.json")
UNFINISHED = "unfinished.pt"


class Ended(BaseException):
    """What the process does when it is asked to end."""


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def _as_the_command_line_ends():
    def end(number, frame):
        raise Ended

    before = signal.signal(signal.SIGTERM, end)
    yield
    assert signal.getsignal(signal.SIGTERM) is end, "the handler was not put back"
    signal.signal(signal.SIGTERM, before)


def asked_after(*batches, times=1):
    def progress(done, total, text):
        if done in batches:
            for _ in range(times):
                signal.raise_signal(signal.SIGTERM)

    return progress


def left(path, batches, config=None):
    """Train until SIGTERM comes, from the beginning or from where the run is."""
    begin = functools.partial(resume, path) if config is None else functools.partial(compress, config, path)
    with pytest.raises(Ended):
        begin(progress=asked_after(batches))


def rows_of(path):
    return [dataclasses.replace(row, seconds=0.0) for row in open_run(path).metrics()]


def same(path, expected):
    assert [(path / name).read_bytes() for name in RESULTS] == [(expected / name).read_bytes() for name in RESULTS]
    assert rows_of(path) == rows_of(expected)
    assert not (path / UNFINISHED).exists()


@pytest.mark.parametrize(("batches", "epochs", "part"), [(2, 0, 2), (7, 1, 3), (9, 2, 1), (4, 1, 1)])
def test_the_batches_that_were_done_are_saved(tiny, sparse_run, tmp_path, batches, epochs, part):
    """Four batches an epoch; where the last one was running, the epoch ends and the next one is left after a batch."""
    path = tmp_path / "run"
    left(path, batches, tiny())
    saved = open_run(path).read_unfinished()
    assert (saved["epoch"], saved["part"]["batches"]) == (epochs, part)
    assert len(open_run(path).metrics()) == epochs
    assert f"epoch {epochs + 1} interrupted by SIGTERM after {part} batches" in (path / "run.log").read_text()
    steps = []
    resume(path, progress=lambda done, *_: steps.append(done))
    assert steps[:2] == [4 * epochs + part, 4 * epochs + part + 1]
    same(path, sparse_run.path)


def test_a_run_that_was_through_but_not_closed(tiny, sparse_run, tmp_path):
    left(tmp_path / "run", 12, tiny())
    assert not (tmp_path / "run" / UNFINISHED).exists()
    assert not open_run(tmp_path / "run").finished
    resume(tmp_path / "run")
    same(tmp_path / "run", sparse_run.path)


def test_one_epoch_may_be_left_twice(tiny, sparse_run, tmp_path):
    path = tmp_path / "run"
    left(path, 5, tiny())
    left(path, 7)
    left(path, 10)
    resume(path)
    same(path, sparse_run.path)


RECIPE = {
    "training.epochs": 8,
    "averaging.decay": 0.9,
    "averaging.reestimate": 60,
    "awp.gamma": 0.01,
    "awp.warmup": 1,
    "selection.held_out": 40,
    "selection.steps": 2,
    "data.augment": ["crop", "rotate"],
    "admm.rho": 0.05,
    "admm.rho_growth": 2.0,
    "admm.rho_max": 1.0,
    "admm.prune_when": 0.7,
}


def test_averages_perturbations_and_an_early_projection_survive(tiny, tmp_path):
    """Left in every epoch, also in the last one before the projection, whose end decides when that comes."""
    whole, path = tmp_path / "whole", tmp_path / "run"
    compress(tiny(RECIPE), whole)
    phases = [row.phase for row in open_run(whole).metrics()]
    assert 1 <= phases.index("masked") < 3, "not earlier than the plan has it"
    left(path, 3, tiny(RECIPE))
    for epoch in range(1, 8):
        left(path, 4 * epoch + 3)
    resume(path)
    same(path, whole)


def test_the_time_of_both_parts_counts(tiny, tmp_path, monkeypatch):
    path, clock = tmp_path / "run", iter(range(0, 10_000, 100))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    left(path, 2, tiny({"training.epochs": 1}))
    spent = open_run(path).read_unfinished()["seconds"]
    resume(path)
    assert open_run(path).metrics()[0].seconds == spent + 100


def test_batches_of_earlier_processes_count_neither_for_the_speed_nor_for_the_time_left(tiny, tmp_path, monkeypatch):
    path, now, texts, stream = tmp_path / "run", [0.0], [], io.StringIO()
    left(path, 6, tiny())  # in the second of three epochs of four batches
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    shown = Progress("training", stream, interval=0.0, begun=None)

    def progress(done, total, text):
        now[0] += 10.0 * (bool(texts) and done < total)  # a batch takes ten seconds
        texts.append((done, total, text))
        shown(done, total, text)

    resume(path, progress=progress)
    assert texts[0] == (6, 12, "epoch 2 resumed")
    assert texts[2][2].endswith(" 10 images/s")  # 100 images in 10 seconds
    assert "training 8/12  40s left" in stream.getvalue()


def test_who_asks_twice_does_not_wait(tiny, tmp_path):
    with pytest.raises(Ended):
        compress(tiny(), tmp_path / "run", progress=asked_after(2, times=2))
    assert not (tmp_path / "run" / UNFINISHED).exists()


def test_a_process_that_ignores_the_signal_goes_on(tiny, sparse_run, tmp_path):
    end = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    compress(tiny(), tmp_path / "run", progress=asked_after(2))
    assert signal.signal(signal.SIGTERM, end) is signal.SIG_IGN
    same(tmp_path / "run", sparse_run.path)


def test_a_handler_that_comes_back_does_not_finish_the_run(tiny, tmp_path):
    noted = []
    end = signal.signal(signal.SIGTERM, lambda *_: noted.append(1))
    with pytest.raises(SystemExit) as caught:
        compress(tiny(), tmp_path / "run", progress=asked_after(2))
    signal.signal(signal.SIGTERM, end)
    assert caught.value.code == 143
    assert noted == [1]
    assert (tmp_path / "run" / UNFINISHED).is_file()


def test_an_error_in_the_block_is_not_hidden_by_the_signal():
    seen = []

    def work():
        with deferred_termination(Ranks()) as asked:
            seen.append(asked())
            signal.raise_signal(signal.SIGTERM)
            seen.append(asked())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert seen == [False, True]


def test_an_older_part_is_not_taken_up_again(tiny, sparse_run, tmp_path):
    """A kill between the state of a finished epoch and the removal of its unfinished one leaves both."""
    path = tmp_path / "run"
    left(path, 6, tiny())
    old = (path / UNFINISHED).read_bytes()

    def die(done, total, text):
        if done == 9:
            raise Killed

    with pytest.raises(Killed):
        resume(path, progress=die)
    assert not (path / UNFINISHED).exists()
    (path / UNFINISHED).write_bytes(old)
    resume(path)
    same(path, sparse_run.path)


def test_a_damaged_part_is_refused_and_may_be_deleted(tiny, sparse_run, tmp_path):
    path = tmp_path / "run"
    left(path, 6, tiny())
    (path / UNFINISHED).write_bytes(b"noise")
    with pytest.raises(InputError, match=r"unfinished\.pt is damaged .*; delete it"):
        resume(path)
    (path / UNFINISHED).unlink()
    resume(path)
    same(path, sparse_run.path)


def test_a_part_of_release_0_1_is_refused_and_may_be_deleted(tiny, sparse_run, tmp_path):
    """It had five sums: no count of the images whose clean loss was computed."""
    path = tmp_path / "run"
    left(path, 6, tiny())
    run = open_run(path)
    state = run.read_unfinished()
    run.write_unfinished({**state, "part": {**state["part"], "sums": state["part"]["sums"][:5]}})
    with pytest.raises(
        InputError, match=r"unfinished\.pt has 5 sums .*, this release needs 6: .*; delete it to resume"
    ):
        resume(path)
    (path / UNFINISHED).unlink()
    resume(path)
    same(path, sparse_run.path)


def test_a_run_that_diverges_after_it_was_left_keeps_the_last_finished_epoch(tiny, tmp_path, monkeypatch):
    path, usual = tmp_path / "run", module.train_epoch
    left(path, 6, tiny())
    finished = open_run(path).read_resume()["model"]

    def train_epoch(*arguments, **named):
        result = usual(*arguments, **named)
        assert not isinstance(result, EpochPart)
        return dataclasses.replace(result, loss=float("nan"))

    monkeypatch.setattr(module, "train_epoch", train_epoch)
    with pytest.raises(TrainingDiverged, match="keeps the network after epoch 1"):
        resume(path)
    kept = open_run(path).load_model().state_dict()
    assert all(torch.equal(tensor, finished[name]) for name, tensor in kept.items())
    assert not (path / UNFINISHED).exists()
