"""Run mode `rebuild` in a separate process, in parallel with the attacks.

A thread cannot be used, since torch.onnx.export patches torch while it runs. This module does not import torch, so that
the process can be started before torch is imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

from robust_edge_runtimes.core.decode import decode, parse_json
from robust_edge_runtimes.core.errors import RobustEdgeError, shown_as
from robust_edge_runtimes.core.processes import end_with
from robust_edge_runtimes.verdict.measurement import Rebuild

CODE = "import sys; sys.path[:] = {path!r}; from {module} import main; main()"
ALLOW = "allow-code"
OBJECTS = 100_000  # allocated between two runs of the garbage collector, which take a fifth of an export by default


class BackgroundRebuild(contextlib.AbstractContextManager["BackgroundRebuild"]):
    """A process that compares a bundle with a new export of its run; leaving the context kills it.

    Args:
        bundle: its folder.
        run: the folder of its run.
        data_dir: folder of the run's images if they were moved.
        allow_code: whether code of the run may be executed.
        original: what messages call the bundle if it is a private copy.
    """

    def __init__(
        self, bundle: Path, run: Path, data_dir: str | None, *, allow_code: bool = False, original: Path | None = None
    ) -> None:
        code = CODE.format(path=sys.path, module=__name__)  # the path of this process, not the working directory
        allowed = ALLOW if allow_code else ""
        command = [
            sys.executable,
            "-c",
            code,
            str(os.getpid()),
            str(bundle),
            str(original or bundle),
            str(run),
            allowed,
            *([] if data_dir is None else [data_dir]),
        ]
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **threads}
        )

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def running(self) -> bool:
        """Whether the process is still running, and so uses a CPU."""
        return self._process.poll() is None

    def result(self) -> Rebuild | None:
        """Wait for the result of the comparison; None if the process failed, so that the caller must compare itself."""
        output, _ = self._process.communicate()
        try:
            return None if self._process.returncode else decode(Rebuild, parse_json(output.splitlines()[-1]))
        except (RobustEdgeError, ValueError, IndexError):
            return None


def second_cpu() -> bool:
    """Whether there is a CPU for another process."""
    allowed = getattr(os, "sched_getaffinity", None)  # on Linux only
    return (os.cpu_count() or 1 if allowed is None else len(allowed(0))) > 1


def main() -> None:
    """Print a Rebuild as JSON.

    The arguments are the process that this one ends with, the bundle, what messages call it, the run, ALLOW or nothing,
    and the folder of the run's images if they were moved.
    """
    parent, bundle, original, path, allowed, *data_dir = sys.argv[1:]
    end_with(int(parent))
    gc.set_threshold(OBJECTS)
    from robust_edge.run.directory import open_run
    from robust_edge.verification.new_export import compare_with_run
    from robust_edge_runtimes.core.bundle import open_bundle

    run = open_run(Path(path), allow_code=allowed == ALLOW)
    with shown_as(Path(bundle), Path(original)):
        found = compare_with_run(open_bundle(Path(bundle)), run, run.load_model(), data_dir[0] if data_dir else None)
    print(json.dumps(dataclasses.asdict(found)))
