"""What the training trials share: networks trained and attacked one after the other, resumable at any moment."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from result_file import provenance, write_result

from robust_edge.config.compress import CompressConfig
from robust_edge.config.settings import differences
from robust_edge.evaluation.accuracy import Accuracy
from robust_edge.evaluation.evaluate import evaluate_run
from robust_edge.evaluation.outcome import AttackResult
from robust_edge.evaluation.record import stored_evaluation
from robust_edge.evaluation.settings import EvaluateSettings
from robust_edge.run.directory import CONFIG, Run, open_run
from robust_edge.training.compress import compress, resume
from robust_edge_runtimes.cli.output import Output
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import write_atomic

OUTPUT = Output(json=False, verbosity=0)
SLICE_OVER = 75
"""Exit code of a slice whose time is up: EX_TEMPFAIL of sysexits.h."""
REMINDER_SECONDS = 5.0
"""Time between two signals that end a slice; longer than a run takes to close its files after the first."""


class SliceOver(BaseException):
    """The time of this slice is up, or the process received SIGTERM."""


def minutes(text: str) -> float:
    """Parse the duration of a slice: a finite number of minutes, at least 0; a type of argparse."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"'{text}' is not a number of minutes of at least 0")


def done_within(minutes: float | None, work: Callable[[], None]) -> bool:
    """Run `work` for at most this number of minutes, None for no limit, and return whether it finished.

    When the time is up this process sends itself SIGTERM, which training defers until its state is saved. Python drops
    an exception that a handler raises while a destructor or a callback of the garbage collector runs, so the signal is
    sent again where `work` goes on. The handler that was there before is restored.
    """
    working = may_send = True
    over = threading.Event()

    def end(*_: object) -> None:
        nonlocal may_send
        may_send = True
        if working:
            raise SliceOver

    def send() -> None:
        nonlocal may_send
        pause = (minutes or 0) * 60
        while not over.wait(pause):
            pause = REMINDER_SECONDS
            if may_send:  # not while training defers the signal: a second one would end it at once, its state not saved
                may_send = False
                os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, end)
    sender = threading.Thread(target=send, daemon=True)
    try:
        if minutes is not None:
            sender.start()
        work()
    except SliceOver:
        return False
    finally:
        working = False
        over.set()
        if sender.ident is not None:
            sender.join()  # its signal must not meet the handler from before
        signal.signal(signal.SIGTERM, before)
    return True


def trained(config: CompressConfig, path: Path) -> Run:
    """The finished run of a config: as it is, resumed, or from the beginning."""
    if not (path / CONFIG).is_file():
        compress(config, path, progress=OUTPUT.progress(f"training {path.name}"))
        return open_run(path)
    run = open_run(path)
    changed = differences(run.config, config)
    if changed:
        raise InputError(f"{path} was trained with other settings ({'; '.join(changed[:3])}); choose another --out")
    resume(path, progress=OUTPUT.progress(f"training {path.name}", begun=None))
    return run


def attacked(run: Run, *, eps: float, steps: int) -> AttackResult:
    """PGD on all test images of the run, from its folder if that has been done."""
    record = stored_evaluation(run, "pgd")
    result = None if record is None else record.result
    if result is None or (result.threat.eps, result.stages[0].settings["steps"]) != (eps, steps):
        settings = EvaluateSettings(attack="pgd", eps=eps, steps=steps)
        result = evaluate_run(run, settings, progress=OUTPUT.progress(f"attacking {run.name}")).result
    assert result is not None
    return result


def training_seconds(run: Run) -> float:
    """Over all epochs, in whatever process."""
    return round(sum(row.seconds for row in run.metrics()), 1)


def share(value: Accuracy) -> str:
    """A percentage with its 95% interval."""
    return f"{100 * value.value:.1f} ({100 * value.low:.1f}-{100 * value.high:.1f})"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
    return "\n".join(lines) + "\n"


def write_results(out: Path, command: str, results: dict[str, Any], tables: str) -> None:
    """OUT.json with commit and machine, unless it has these results already, and OUT.md."""
    path = out.with_suffix(".json")
    found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if not json.loads(json.dumps(results)).items() <= found.items():
        head = {**provenance(command, "torch"), "threads": torch.get_num_threads()}
        write_result(path, {**head, **results})
    write_atomic(out.with_suffix(".md"), tables)
    print(tables)
