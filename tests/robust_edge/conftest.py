"""Runs small enough to train in a second, shared by everything that only reads them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from robust_edge.cli import main
from robust_edge.config.compress import CompressConfig
from robust_edge.config.settings import resolve
from robust_edge.run.directory import Run, open_run
from robust_edge.run.images import evaluation_images
from robust_edge.training.compress import compress

TINY = {
    "data.limit_train": 200,
    "data.limit_test": 60,
    "training.epochs": 3,
    "training.batch_size": 50,
    "training.lr": 0.1,
    "attack.steps": 2,
    "admm.rho": 0.01,
    "admm.interval": 2,
    "threads": 1,
    "device": "cpu",
}
COMMAND = [sys.executable, "-c", "from robust_edge.cli import main; main()"]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before[0])
    torch.use_deterministic_algorithms(before[1])


@pytest.fixture(scope="session")
def tiny() -> Callable[..., CompressConfig]:
    """A config that trains in half a second; dotted keys override."""
    return lambda flags=None: resolve(preset="quick", flags={**TINY, **(flags or {})})


@pytest.fixture(scope="session")
def tiny_flags() -> list[str]:
    """The same settings for a command line."""
    return [part for key, value in TINY.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(scope="session")
def sparse_run(tiny, tmp_path_factory) -> Run:
    """A finished robust run that keeps a tenth; do not write into it."""
    path = tmp_path_factory.mktemp("runs") / "sparse"
    compress(tiny(), path)
    return open_run(path)


@pytest.fixture(scope="session")
def benign_run(tiny, tmp_path_factory) -> Run:
    """A finished dense run without an adversary; do not write into it."""
    path = tmp_path_factory.mktemp("runs") / "benign"
    compress(tiny({"attack.eps": 0.0, "pruning.keep": 1.0}), path)
    return open_run(path)


@pytest.fixture
def cli() -> Callable[..., Result]:
    """Run `robust-edge` in this process."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def refused(cli) -> Callable[..., str]:
    """Run a command that must end in exactly one `error:` line; returns that line."""

    def run(*arguments: object, code: int = 2) -> str:
        result = cli(*arguments)
        lines = result.stderr.splitlines()
        assert result.exit_code == code, result.output
        assert [line.startswith("error: ") for line in lines] == [True], result.stderr
        assert result.stdout == ""
        assert isinstance(result.exception, SystemExit)
        return lines[0]

    return run


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """Start `robust-edge` as a process of its own; killed at the end of the test."""
    started: list[subprocess.Popen] = []

    def run(*arguments: object, cwd: Path | None = None) -> subprocess.Popen:
        process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            # a test run in the background inherits an ignored SIGINT, which Python would go on ignoring
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def judged_run(tiny, tmp_path_factory) -> Run:
    """A benign network that is right on most test images, some of which fall and some hold; do not write into it."""
    path = tmp_path_factory.mktemp("runs") / "judged"
    compress(
        tiny(
            {
                "attack.eps": 0.0,
                "pruning.keep": 1.0,
                "data.limit_train": None,
                "training.epochs": 2,
                "data.limit_test": None,
            }
        ),
        path,
    )
    return open_run(path)


@pytest.fixture(scope="session")
def sibling_run(tiny, tmp_path_factory) -> Run:
    """The same from another seed, a little robust; do not write into it."""
    path = tmp_path_factory.mktemp("runs") / "sibling"
    flags = {"attack.eps": 0.05, "pruning.keep": 1.0, "data.limit_train": None, "data.limit_test": None}
    flags |= {"training.epochs": 2, "seed": 1}
    compress(tiny(flags), path)
    return open_run(path)


@pytest.fixture
def judged(judged_run):
    """The network and 60 of its test images."""
    return judged_run.load_model(), evaluation_images(judged_run, limit=60)
