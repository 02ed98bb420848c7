"""The time and memory of a new process that opens a bundle and classifies one image."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from robust_edge_runtimes.core.environment import peak_rss_bytes
from robust_edge_runtimes.core.errors import BackendUnavailable, BundleError, RobustEdgeError
from robust_edge_runtimes.core.limits import TimeLimit
from robust_edge_runtimes.core.processes import end_with
from robust_edge_runtimes.formats.table import format_named

if TYPE_CHECKING:
    from robust_edge_runtimes.core.bundle import Bundle

# Without the working folder on sys.path: it may be the bundle's folder, from which nothing may be imported.
_PROGRAM = (
    "import sys; sys.path[:] = filter(None, sys.path); from robust_edge_runtimes.bench.cold_start import main; main()"
)


@dataclasses.dataclass(frozen=True)
class ColdStart:
    """A new process that opens the bundle and runs one inference.

    Attributes:
        load_ns: time to check the bundle, import the backend and load the artifact.
        first_ns: time of the first inference of one image.
        peak_rss_bytes: peak resident memory of that process, interpreter included.
    """

    load_ns: int
    first_ns: int
    peak_rss_bytes: int


def measure_cold_start(bundle: Bundle, threads: int) -> ColdStart:
    """Start the process and read what it measured.

    Raises:
        BackendUnavailable: the process failed, for example because the backend is not installed.
    """
    command = [sys.executable, "-c", _PROGRAM, str(bundle.path), str(threads), str(os.getpid())]
    compiles = format_named(bundle.manifest.artifact.format).runtime().compiles
    with TimeLimit(f"{bundle.path} in a new process", BundleError).opening(compiles=compiles):
        done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise BackendUnavailable(f"{bundle.path} does not start: {done.stderr.decode(errors='replace').strip()}")
    return ColdStart(**json.loads(done.stdout))


def main() -> None:
    """Run in the new process: print the fields of ColdStart as JSON, or one line of an error."""
    path, threads, parent = sys.argv[1:]
    end_with(int(parent))
    try:
        print(json.dumps(dataclasses.asdict(_measure(path, int(threads)))))
    except RobustEdgeError as error:
        sys.exit(str(error))


def _measure(path: str, threads: int) -> ColdStart:
    start = time.perf_counter_ns()
    from robust_edge_runtimes.core.bundle import open_bundle
    from robust_edge_runtimes.load import load

    bundle = open_bundle(path)
    with load(bundle, threads=threads) as model:
        loaded = time.perf_counter_ns()
        image = bundle.golden().clean[:1]
        before = time.perf_counter_ns()
        model.infer_all(image)
        after = time.perf_counter_ns()
    return ColdStart(load_ns=loaded - start, first_ns=after - before, peak_rss_bytes=peak_rss_bytes())
