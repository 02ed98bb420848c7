"""Run the steps of one cell, each in a process of its own, and record which are finished."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from robust_edge_runtimes.core.decode import decode, read_json
from robust_edge_runtimes.core.files import try_lock, write_json

STATE, LOCK = "state.json", "lock"
POLL_S = 0.1
GRACE_S = 60  # for a step that was told to end; `compress` saves its state first
TAIL = 4096  # bytes of a log in which its last line is looked for

Note = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class StepCommand:
    """One step of a cell.

    Attributes:
        title: the step as the user wrote it; two steps with equal titles do the same.
        arguments: of `robust-edge`.
        accepted: exit codes after which the step has printed its result as JSON.
        stem: name of its files in the folder of the results, without the suffix.
    """

    title: str
    arguments: tuple[str, ...]
    accepted: tuple[int, ...]
    stem: str


@dataclasses.dataclass(frozen=True)
class CellJob:
    """The work for one cell; it can be sent to another process.

    Attributes:
        folder: of the results; it exists.
        program: the command line that the arguments of a step are appended to.
    """

    name: str
    folder: Path
    steps: tuple[StepCommand, ...]
    program: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a step ended.

    Attributes:
        code: exit code, or the negative number of the signal that ended it.
        why: last line of its log if it failed.
    """

    title: str
    code: int
    why: str = ""


@dataclasses.dataclass(frozen=True)
class CellState:
    """The content of state.json: the finished steps in order, and the step that failed after them, if one did."""

    done: tuple[Ended, ...] = ()
    failed: Ended | None = None


@dataclasses.dataclass(frozen=True)
class Resources:
    """What the steps of a cell may use.

    Attributes:
        threads: number of threads of numerical libraries.
        cores: the CPU cores that they are bound to; all if empty.
        gpu: value of CUDA_VISIBLE_DEVICES; None leaves it as it is.
    """

    threads: int
    cores: tuple[int, ...] = ()
    gpu: str | None = None

    def environment(self) -> dict[str, str]:
        """The environment of a step."""
        chosen = {name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        return {**os.environ, **chosen, **({} if self.gpu is None else {"CUDA_VISIBLE_DEVICES": self.gpu})}


def read_state(job: CellJob) -> CellState:
    """Which steps are finished; those after the first one that has changed are not."""
    path = job.folder / STATE
    state = decode(CellState, read_json(path), where=str(path)) if path.is_file() else CellState()
    titles = [step.title for step in job.steps]
    kept = 0
    while kept < min(len(state.done), len(titles)) and state.done[kept].title == titles[kept]:
        kept += 1
    return CellState(state.done[:kept], state.failed if kept == len(state.done) else None)


def finished(job: CellJob) -> bool:
    """Whether all steps of a cell are finished."""
    return len(read_state(job).done) == len(job.steps)


def run_cell(job: CellJob, resources: Resources, stop: threading.Event, note: Note) -> None:
    """Run the steps that are not finished, up to the first one that fails, and write state.json after each.

    Args:
        job: the cell.
        resources: what its steps may use.
        stop: once it is set, the running step is told to end and no other one is started.
        note: called with a message for the user.
    """
    with _locked(job, stop, note) as lock:
        state = CellState(read_state(job).done)
        for step in job.steps[len(state.done) :]:
            if stop.is_set():
                return
            note(f"{job.name}: {step.title}")
            code = _run(job, step, resources, lock, stop)
            if code in step.accepted and _keep_result(job, step):
                state = CellState((*state.done, Ended(step.title, code)))
            elif stop.is_set():
                return
            else:
                state = CellState(state.done, Ended(step.title, code, _last_line(job, step)))
                note(f"{job.name}: {step.title} failed (exit {code}): {state.failed.why if state.failed else ''}")
            write_json(job.folder / STATE, dataclasses.asdict(state))
            if state.failed is not None:
                return


@contextlib.contextmanager
def _locked(job: CellJob, stop: threading.Event, note: Note) -> Iterator[int]:
    """Hold the lock of the cell. The steps inherit it, so that it outlives a killed parent until its last step ends."""
    handle = os.open(job.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    waiting = False
    try:
        while try_lock(handle) is False and not stop.wait(POLL_S):
            if not waiting:
                note(f"{job.name}: waiting until a step that another process started has ended")
            waiting = True
        yield handle
    finally:
        os.close(handle)


def _run(job: CellJob, step: StepCommand, resources: Resources, lock: int, stop: threading.Event) -> int:
    """Run one step; its log is appended to, its stdout replaced."""
    with (job.folder / f"{step.stem}.log").open("ab") as log, _printed(job, step).open("wb") as printed:
        process = subprocess.Popen(
            [*job.program, *step.arguments],
            stdin=subprocess.PIPE,
            stdout=printed,
            stderr=log,
            env=resources.environment(),
            pass_fds=(lock,),
            start_new_session=True,  # Ctrl-C reaches the sweep alone, which then ends its steps one by one
        )
        if resources.cores and hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(process.pid, resources.cores)
        return _wait(process, stop)


def _wait(process: subprocess.Popen[bytes], stop: threading.Event) -> int:
    with process:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(POLL_S)
            if stop.is_set():
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(GRACE_S)
                process.kill()


def _printed(job: CellJob, step: StepCommand) -> Path:
    return job.folder / f"{step.stem}.part"


def _keep_result(job: CellJob, step: StepCommand) -> bool:
    """Rename what the step printed to its final name; False if it printed nothing."""
    printed = _printed(job, step)
    if not printed.stat().st_size:
        return False
    printed.replace(job.folder / f"{step.stem}.json")
    return True


def _last_line(job: CellJob, step: StepCommand) -> str:
    with (job.folder / f"{step.stem}.log").open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL))
        lines = log.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last.removeprefix("error: ")
