"""Kill commands at random moments and repeat them, and start pairs of the same command at once: nothing is lost.

    python -m tests.endurance.kills --kills 200 --pairs 50 -o kills

A command is killed with SIGKILL at a random moment: its main process alone, its process group, or all its processes.
The same command is then repeated. It must end as an undisturbed one does, and the folder must hold the same files with
the same contents, except for times: no temporary file, no lock, and no process is left. Of a pair, one command must
work and the other one be refused in one line. Linux only; the report of failures is printed, and their folders stay.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import json
import os
import random
import re
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.commands import forked, run

TRAINED = "--epochs 4 --eps 0.1 --keep 0.2 --steps 1 --set data.limit_train=600 --set data.limit_test=60"
CELLS = (
    "--grid keep=0.5,0.2 --epochs 2 --eps 0.1 --steps 1 --set data.limit_train=200 --set data.limit_test=20 --jobs 2 "
    "--cores 1"
)
TWELVE = CELLS.replace("keep=0.5,0.2", "keep=0.5,0.3,0.2 --grid seed=0,1,2,3")
EXPORT = "export --target x86-cpu --golden 20 --steps 2"
WRITTEN = (
    (f"compress {TRAINED} -o run", 0),
    (f"{EXPORT} run -o bundle", 0),
    ("verify bundle --mode replay -o read/verify.json", 5),
    ("bench bundle --images 5 --seconds 0.01 -o read/bench.json", 0),
)
"""What the killed commands read, and the exit codes of the commands that write it."""
MODES = ("main process", "process group", "all processes")
ORPHANS_S = 60.0  # until the steps of a killed sweep have ended by themselves
PR_SET_CHILD_SUBREAPER = 36
# Values that differ between two undisturbed commands: times, and what follows from them.
TIMES = re.compile(
    r".*seconds|.*_ns|utc|(peak|before|bound)_.*|throughput|spread|unstable|joules_per_image|n|call_ns|share|fastest|"
    r"heavy|speedup|resumed"
)
MEMORY = re.compile(r"peak memory at most \d+ MiB, \d+ MiB used")
MINUTE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC")  # at which a page was written
FOREIGN = {"Microsoft", "matplotlib", "torchinductor_root", "jobs"}  # caches of libraries, and files of submitit
LOGS = re.compile(r".*\.log|latency\.csv")


@dataclasses.dataclass(frozen=True)
class Command:
    """A command that is killed.

    Attributes:
        line: its arguments; it runs in a folder that holds `run` and `bundle`.
        code: its exit code.
        in_a_row: how often it is killed before it may end.
        most: the largest number of its kills, and of pairs.
    """

    line: str
    code: int = 0
    in_a_row: int = 1
    most: int | None = None


COMMANDS = {
    "compress": Command(f"compress --resume {TRAINED} -o new"),
    "evaluate": Command("evaluate run --attack autoattack --eps 0.1 --limit 6 --batch 2"),
    "export": Command(f"{EXPORT} run -o new --overwrite"),
    "verify": Command("verify bundle --against run --limit 50 --seed 0 -o verify.json", 5),
    "bench": Command("bench bundle --images 20 --seconds 0.1 -o bench.json"),
    "report": Command("report run --verify read/verify.json --bench read/bench.json -o report.html"),
    "sweep": Command(f"sweep {CELLS} --then '{EXPORT}' -o new"),
    "twelve": Command(f"sweep {TWELVE} --then '{EXPORT}' -o new", in_a_row=2, most=4),
    "twelve by submitit": Command(
        f"sweep {TWELVE} --then '{EXPORT}' -o new --launcher submitit-local", in_a_row=2, most=4
    ),
}


class Folder:
    """The folder in which commands run, with everything that they read and write, temporary files included."""

    def __init__(self, base: Path) -> None:
        self.base, self.path = base, base / "work"
        self._inputs = base / "inputs"

    def prepare(self) -> None:
        """Write what the commands read: a run, its bundle, a verdict and a benchmark."""
        if self._inputs.exists():
            return
        fresh = Path(tempfile.mkdtemp(dir=self.base))
        (fresh / "read").mkdir()
        for line, code in WRITTEN:
            run("robust-edge", *line.split(), cwd=fresh, expect=code)
        fresh.rename(self._inputs)

    def renew(self) -> None:
        """Empty the folder but for the inputs; its path stays the same, since commands record paths."""
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(self._inputs, self.path)
        for name in ("tmp", "home"):
            (self.path / name).mkdir()

    def contents(self) -> dict[str, object]:
        """Every file by its path, with its content but for times."""
        found = [path for path in sorted(self.path.rglob("*")) if not path.is_dir() or not any(path.iterdir())]
        ours = [path for path in found if not FOREIGN & {*path.parts}]
        return {str(path.relative_to(self.path)): content(path) for path in ours}


def content(path: Path) -> object:
    """The content of a file without times."""
    if path.is_dir() or LOGS.fullmatch(path.name):
        return None
    if path.suffix not in (".json", ".jsonl", ".history"):
        return MINUTE.sub(b"", path.read_bytes())
    text = path.read_text()
    return [without_times(json.loads(line)) for line in ([text] if path.suffix == ".json" else text.splitlines())]


def without_times(value: object) -> object:
    """The value with the fields of TIMES emptied, and without figures of memory."""
    if isinstance(value, dict):
        return {key: None if TIMES.fullmatch(key) else without_times(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_times(item) for item in value]
    return MEMORY.sub("", value) if isinstance(value, str) else value


def start(line: str, folder: Folder, log: Path) -> int:
    """Start `robust-edge LINE` in a fork of this process, which has imported everything, as leader of its session."""

    def action() -> None:
        os.setsid()
        os.chdir(folder.path)
        places = {"TMPDIR": "tmp", "HOME": "home", "XDG_CACHE_HOME": "home/cache", "XDG_STATE_HOME": "home/state"}
        os.environ.update({name: str(folder.path / place) for name, place in places.items()}, OMP_NUM_THREADS="1")
        tempfile.tempdir = None
        sys.argv = ["robust-edge", *shlex.split(line)]
        from robust_edge.cli import main

        main()

    return forked(action, errors=log)


def wait(pid: int) -> int:
    """The exit code of a process; negative after a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def descendants(pid: int) -> list[int]:
    """A process and all processes below it."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:  # it has ended
        return [pid]
    return [pid, *(found for child in children for found in descendants(child))]


def kill(pid: int, mode: str) -> None:
    """Kill a command with SIGKILL."""
    if mode == "process group" and os.getpgid(pid) == pid:  # else it has only just been started
        os.killpg(pid, signal.SIGKILL)
        return
    for process in descendants(pid) if mode == "all processes" else [pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def reap_orphans() -> tuple[float, list[str]]:
    """Wait for the processes that a command left, which are now children of this one.

    Returns:
        Seconds until the last one ended, and the command lines of those that had not ended after ORPHANS_S.
    """
    begun = time.monotonic()
    while time.monotonic() < begun + ORPHANS_S:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.02)
        except ChildProcessError:
            return time.monotonic() - begun, []
    left = descendants(os.getpid())[1:]
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode() for pid in left]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    reap_orphans()
    return ORPHANS_S, lines


class Trial:
    """Kills and pairs of one command."""

    def __init__(self, name: str, folder: Folder, chance: random.Random) -> None:
        self.name, self.command, self.folder, self.chance = name, COMMANDS[name], folder, chance
        self.failures: list[str] = []
        self.kills = dict.fromkeys(MODES, 0)
        self.pairs, self.longest, self.seconds = 0, 0.0, 0.0
        self.expected: dict[str, object] = {}
        self.log, self.other = folder.base / "stderr", folder.base / "stderr2"

    def measure(self) -> None:
        """Run the command undisturbed twice; both results must be equal."""
        for _ in range(2):
            self.folder.renew()
            begun = time.monotonic()
            code = wait(start(self.command.line, self.folder, self.log))
            self.seconds = time.monotonic() - begun
            assert code == self.command.code, f"{self.name}: exit {code}\n{self.log.read_text()}"
            reap_orphans()
            self._compare("undisturbed")

    def kill_once(self) -> None:
        """Kill the command at one or more random moments, and repeat it."""
        self.folder.renew()
        killed = [at for at in (self._start_and_kill() for _ in range(self.command.in_a_row)) if at]
        if not killed:
            return
        at = f"killed ({'; then '.join(killed)} of {self.seconds:.2f} s)"
        code = wait(start(self.command.line, self.folder, self.log))
        if code != self.command.code:
            self._fail(f"{at}; the next one ended with exit {code}: {self.log.read_text()[-500:]}")
        self._reap(at)
        self._compare(at)

    def _start_and_kill(self) -> str:
        """How and when the command was killed; "" if it had ended before."""
        mode, delay = self.chance.choice(MODES), self.chance.uniform(0, self.seconds / self.command.in_a_row)
        pid = start(self.command.line, self.folder, self.log)
        time.sleep(delay)
        kill(pid, mode)
        if wait(pid) != -signal.SIGKILL:
            return ""
        self.kills[mode] += 1
        at = f"{mode} after {delay:.2f} s"
        if not self.command.line.startswith("sweep"):  # the next sweep waits for the steps itself
            self._reap(at)
        return at

    def pair_once(self) -> None:
        """Start the command twice at almost the same time."""
        self.folder.renew()
        delay = self.chance.choice((0, self.chance.uniform(0, 0.3 * self.seconds)))
        first = start(self.command.line, self.folder, self.log)
        time.sleep(delay)
        second = start(self.command.line, self.folder, self.other)
        codes = wait(first), wait(second)
        self._reap("pair")
        self.pairs += 1
        told = [log.read_text() for log in (self.log, self.other)]
        if sorted(codes) != sorted((self.command.code, 2)):
            self._fail(f"pair {delay:.2f} s apart: exits {codes}: {told}")
        elif not re.fullmatch(r"error: .* is being written by .*\n", told[codes.index(2)]):
            self._fail(f"pair {delay:.2f} s apart: refused by {told[codes.index(2)]!r}")
        self._compare(f"pair {delay:.2f} s apart")

    def _reap(self, at: str) -> None:
        seconds, left = reap_orphans()
        self.longest = max(self.longest, seconds)
        if left:
            self._fail(f"{at}; processes are left: {left}")

    def _compare(self, at: str) -> None:
        found = self.folder.contents()
        self.expected = self.expected or found
        differing = [name for name in {**found, **self.expected} if found.get(name, 0) != self.expected.get(name, 0)]
        if differing:
            self._fail(f"{at}; files differ: {', '.join(sorted(differing))}")

    def _fail(self, text: str) -> None:
        kept = self.folder.base / f"failed-{self.name}-{len(self.failures)}"
        shutil.copytree(self.folder.path, kept, dirs_exist_ok=True, symlinks=True)
        self.failures.append(f"{self.name}: {text} [{kept}]")
        print("FAILED", self.failures[-1], flush=True)

    def summary(self) -> str:
        """What was done, in one line."""
        modes = ", ".join(f"{count} {mode}" for mode, count in self.kills.items())
        return (
            f"{self.name}: {sum(self.kills.values())} kills ({modes}) of {self.seconds:.1f} s, {self.pairs} pairs, "
            f"{len(self.failures)} failures; the last process had ended {self.longest:.1f} s after a kill"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trials; returns the number of failures, at most 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="of all commands together")
    parser.add_argument("--pairs", type=int, default=50, help="of all commands together")
    parser.add_argument("--only", action="append", choices=COMMANDS, help="this command; repeatable")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="end after so many")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to work in")
    given = parser.parse_args(arguments)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    given.out.mkdir(parents=True, exist_ok=True)
    folder, names = Folder(given.out.resolve()), given.only or list(COMMANDS)
    folder.prepare()
    end = time.monotonic() + 60 * given.minutes
    trials = []
    for index, name in enumerate(names):
        trial = Trial(name, folder, random.Random(f"{given.seed} {name}"))
        trials.append(trial)
        trial.measure()
        shares = (count // len(names) + (index < count % len(names)) for count in (given.kills, given.pairs))
        kills, pairs = (min(share, trial.command.most or share) for share in shares)
        while sum(trial.kills.values()) < kills and time.monotonic() < end:
            trial.kill_once()
        while trial.pairs < pairs and time.monotonic() < end:
            trial.pair_once()
        print(trial.summary(), flush=True)
    return int(any(trial.failures for trial in trials))


if __name__ == "__main__":
    sys.exit(main())
