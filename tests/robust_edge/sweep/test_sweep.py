import dataclasses
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Thread

import pytest

from robust_edge.sweep import cell as cells
from robust_edge.sweep.cell import Resources, run_cell
from robust_edge.sweep.launch_options import LaunchOptions
from robust_edge.sweep.launchers import LAUNCHERS, launcher
from robust_edge.sweep.local import parts
from robust_edge.sweep.plan import COMPRESS, VERIFY, Step
from robust_edge.sweep.sweep import PAGE, TABLE, TIMES, run_sweep, status
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.locks import locked

GRID = ("keep=0.2,0.1", "seed=0,1")
NAMES = [f"keep={keep},seed={seed}" for keep in ("0.2", "0.1") for seed in (0, 1)]
SCRIPT = """
import pickle, sys
from robust_edge.sweep.launch_options import LaunchOptions
from robust_edge.sweep.sweep import run_sweep
plan, name = pickle.load(sys.stdin.buffer)
run_sweep(plan, name, LaunchOptions(folder=plan.folder / "jobs"), print)
"""
HOLDER = """
import fcntl, sys, time
with open(sys.argv[1], "w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    print(flush=True)
    time.sleep(0.5)
"""
CHILD = """
import time
from robust_edge.sweep import child
child.runpy.run_module = lambda *words, **options: (print(flush=True), time.sleep(60))
child.main()
"""


def swept(plan, name="local", *, notes=None, **options):
    note = (lambda text: None) if notes is None else notes.append
    return run_sweep(plan, name, LaunchOptions(folder=plan.folder / "jobs", **options), note)


def wait_for(path, seconds=60):
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} does not appear"
        time.sleep(0.01)


def epochs(plan):
    return {path: path.read_text() for cell in plan.cells for path in sorted(plan.run(cell).glob("epoch-*"))}


@pytest.fixture(scope="module")
def whole(plan_of, tmp_path_factory):
    """A sweep without an interruption, and its result."""
    plan = plan_of(tmp_path_factory.mktemp("sweeps") / "whole", *GRID)
    return plan, swept(plan, jobs=2)


def test_every_step_of_every_cell_is_run_and_compared(whole):
    plan, result = whole
    assert [(cell.name, cell.state, cell.done) for cell in result.cells] == [(name, "done", 4) for name in NAMES]
    assert result.exit_code == 0
    assert [row.nonzero for row in result.rows] == [200, 200, 100, 100]
    assert [(row.target, row.verdict, row.latency is None) for row in result.rows] == [("x86-cpu", "pass", False)] * 4
    page = (plan.folder / PAGE).read_text()
    assert "http" not in page.replace("http://www.w3.org", "")
    assert (
        len((plan.folder / TABLE).read_text().splitlines()) == len((plan.folder / TIMES).read_text().splitlines()) == 5
    )
    assert sorted(path.name for path in plan.folder.iterdir()) == [
        "bundles", "latency.csv", "pareto.csv", "pareto.html", "results", "runs", "sweep.json"
    ]  # fmt: skip


def test_the_same_command_does_nothing_again_and_a_longer_one_only_what_is_new(plan_of, tmp_path):
    plan = plan_of(tmp_path / "sweep", *GRID, steps=(Step(COMPRESS),))
    swept(plan)
    before, table = epochs(plan), (plan.folder / TABLE).read_bytes()
    notes = []
    swept(plan, notes=notes)
    assert notes == ["4 of 4 cells are finished already"]
    assert (plan.folder / TABLE).read_bytes() == table
    larger = plan_of(plan.folder, "keep=0.2,0.1", "seed=0,1,2")
    result = swept(larger, notes=notes)
    assert [cell.state for cell in result.cells] == ["done"] * 6
    assert before.items() <= epochs(larger).items()
    assert not any("seed=1: compress" in line for line in notes)
    assert "keep=0.2,seed=2: compress" in notes


def test_the_tables_need_no_bundle_of_a_finished_cell(plan_of, tmp_path):
    plan = plan_of(tmp_path / "sweep", "keep=0.2,0.1")
    swept(plan)
    before = (plan.folder / TABLE).read_bytes()
    shutil.rmtree(plan.folder / "bundles")
    assert swept(plan).exit_code == 0
    assert (plan.folder / TABLE).read_bytes() == before
    printed = plan.result(plan.cells[0], 1)
    for text in ("{}", "[]", '{"manifest": {"schema_version": 99}}'):
        printed.write_text(text)
        with pytest.raises(InputError, match="is not what `export` of this release prints"):
            swept(plan)


def test_a_killed_sweep_resumes_to_the_same_table(whole, plan_of, tmp_path, monkeypatch):
    plan = plan_of(tmp_path / "killed", *GRID)
    monkeypatch.setenv("EPOCH_S", "0.1")
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        process.stdin.write(pickle.dumps((plan, "local")))
        process.stdin.close()
        wait_for(plan.run(plan.cells[1]) / "epoch-1")
        process.kill()
    found = epochs(plan)
    assert plan.run(plan.cells[0]) / "epoch-3" in found
    assert plan.run(plan.cells[3]) / "epoch-3" not in found
    monkeypatch.setenv("EPOCH_S", "0")
    result = swept(plan)
    assert result.exit_code == 0
    assert found.items() <= epochs(plan).items()  # nothing is trained twice
    for name in (TABLE, TIMES, PAGE):
        assert (plan.folder / name).read_bytes().replace(b"killed", b"whole") == (whole[0].folder / name).read_bytes()


def test_a_cell_waits_for_a_step_that_a_killed_sweep_left(plan_of, tmp_path):
    plan = plan_of(tmp_path / "sweep", "keep=0.1", steps=(Step(COMPRESS),))
    plan.write()
    lock = plan.results(plan.cells[0]) / cells.LOCK
    notes = []
    with subprocess.Popen([sys.executable, "-c", HOLDER, lock], stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        result = swept(plan, notes=notes)
        assert other.poll() is not None
    assert "waiting until a step" in notes[0]
    assert result.exit_code == 0


def test_a_cell_that_fails_does_not_stop_the_others_and_is_tried_again(plan_of, tmp_path):
    plan = plan_of(tmp_path / "sweep", "seed=12,13,14")
    result = swept(plan)
    assert [cell.state for cell in result.cells] == ["done", "failed", "done"]
    assert result.cells[1].why == "compress, exit 1: seed 13 diverged"
    assert result.exit_code == 1
    assert [row.values for row in result.rows] == [("12",), ("14",)]
    assert "seed 13 diverged" in (plan.folder / PAGE).read_text()
    notes = []
    assert swept(plan, notes=notes).exit_code == 1
    assert notes[1:] == ["seed=13: compress", "seed=13: compress failed (exit 1): seed 13 diverged"]


@pytest.mark.parametrize(("outcome", "code"), [("undecided", 5), ("fail", 1)])
def test_a_verdict_is_a_result_and_decides_the_exit_code(plan_of, tmp_path, samples, outcome, code):
    written = (samples / "verify.json").read_text()
    (samples / "verify.json").write_text(json.dumps({**json.loads(written), "outcome": outcome}))
    try:
        result = swept(plan_of(tmp_path / "sweep", "keep=0.1"))
    finally:
        (samples / "verify.json").write_text(written)
    assert (result.cells[0].state, result.rows[0].verdict, result.exit_code) == ("done", outcome, code)


def test_an_interruption_ends_the_running_steps(plan_of, tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCH_S", "30")
    plan = plan_of(tmp_path / "sweep", *GRID)

    def interrupt(number, frame):
        raise KeyboardInterrupt

    def send():
        wait_for(plan.run(plan.cells[0]) / "epoch-0")
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    sender = Thread(target=send)
    try:
        sender.start()
        with pytest.raises(KeyboardInterrupt):
            swept(plan)
        sender.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    (pid,) = {int(text) for text in epochs(plan).values()}
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert [cell.state for cell in status(plan)] == ["open"] * 4
    assert not (plan.folder / PAGE).exists()


# the debug executor leaves the files of its logs open
LEFT_OPEN = pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")


@pytest.mark.parametrize("name", ["submitit-local", pytest.param("submitit-debug", marks=LEFT_OPEN)])
def test_submitit_gives_the_same_table(name, whole, plan_of, tmp_path):
    pytest.importorskip("submitit", reason="jobs are submitted by submitit")
    plan = plan_of(tmp_path / "sweep", *GRID)
    assert swept(plan, name, jobs=4).exit_code == 0
    assert (plan.folder / TABLE).read_bytes() == (whole[0].folder / TABLE).read_bytes()


def test_slurm_is_named_where_it_is_missing(plan_of, tmp_path):
    pytest.importorskip("submitit", reason="jobs are submitted by submitit")
    with pytest.raises(Exception, match="Slurm is not available here") as caught:
        swept(plan_of(tmp_path / "sweep", "keep=0.1"), "submitit")
    assert caught.value.exit_code == 3
    with pytest.raises(InputError, match="Unknown argument 'colour'"):
        swept(plan_of(tmp_path / "sweep", "keep=0.1"), "submitit-local", slurm={"colour": "red"})
    with pytest.raises(InputError, match="time is minutes, H:M:S or D-H:M:S; it is 'abc'"):
        swept(plan_of(tmp_path / "sweep", "keep=0.1"), "submitit-local", slurm={"time": "abc"})
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_has_one_writer_and_keeps_its_settings(plan_of, tmp_path):
    plan = plan_of(tmp_path / "sweep", "keep=0.1", steps=(Step(COMPRESS),))
    with locked(plan.folder), ThreadPoolExecutor(1) as other, pytest.raises(InputError, match="is being written by"):
        other.submit(swept, plan).result()
    swept(plan)
    other = dataclasses.replace(
        plan, cells=tuple(dataclasses.replace(c, config=dataclasses.replace(c.config, seed=5)) for c in plan.cells)
    )
    with pytest.raises(InputError, match=re.escape("cell keep=0.1 was started with other settings (seed: 0, not 5)")):
        swept(other)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not a sweep"):
        swept(dataclasses.replace(plan, folder=foreign))
    (foreign / "config.yaml").touch()
    (foreign / "environment.json").touch()
    with pytest.raises(InputError, match="belongs to a bundle or a run"):
        swept(dataclasses.replace(plan, folder=foreign / "sweep"))
    with pytest.raises(InputError, match="needs a bundle"):
        plan_of(tmp_path / "sweep", "keep=0.1", steps=(Step(COMPRESS), Step(VERIFY)))


def test_a_step_that_changes_is_run_again_with_all_after_it(plan_of, tmp_path):
    first = plan_of(tmp_path / "sweep", "keep=0.1")
    swept(first)
    compress, export, _, bench = first.steps
    notes = []
    changed = dataclasses.replace(first, steps=(compress, export, Step(VERIFY, ("--limit", "50")), bench))
    swept(changed, notes=notes)
    assert notes == ["keep=0.1: verify --limit 50", "keep=0.1: bench"]


@pytest.mark.parametrize(
    ("jobs", "each", "cores", "expected"),
    [
        (1, None, [0, 1, 2], [(0, 1, 2)]),
        (2, None, [0, 1, 2, 3], [(0, 1), (2, 3)]),
        (2, 1, [4, 6, 8], [(4,), (6,)]),
        (3, None, [0, 1], [(0,), (1,), (0,)]),
    ],
)
def test_cores_are_parted(jobs, each, cores, expected, tmp_path):
    found = parts(LaunchOptions(folder=tmp_path, jobs=jobs, cores=each, gpus=("0", "1")), cores)
    assert [part.cores for part in found] == expected
    assert [part.gpu for part in found] == ["0", "1", "0"][:jobs]
    assert [part.threads for part in found] == [len(part) for part in expected]


def test_more_cores_than_there_are_are_refused(tmp_path):
    with pytest.raises(InputError, match="need 4; there are 3"):
        parts(LaunchOptions(folder=tmp_path, jobs=2, cores=2), [0, 1, 2])


def test_every_row_of_the_table_is_a_launcher():
    assert all(callable(launcher(name)) for name in LAUNCHERS)


def test_steps_have_the_threads_of_their_cell(plan_of, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    environment = Resources(3, gpu="1").environment()
    assert (environment["OMP_NUM_THREADS"], environment["CUDA_VISIBLE_DEVICES"]) == ("3", "1")


def test_a_child_ends_with_its_parent():
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdin.close()
        assert process.wait(30) == -signal.SIGTERM


def test_a_state_of_a_stopped_cell_is_not_written(plan_of, tmp_path):
    plan, stop = plan_of(tmp_path / "sweep", "keep=0.1"), Event()
    plan.write()
    stop.set()
    run_cell(plan.job(plan.cells[0]), Resources(1), stop, print)
    assert [cell.state for cell in status(plan)] == ["open"]
