"""Times `robust-edge verify` on the demo's bundle against an older source tree, in turns in one run.

Each tree verifies the bundle that its own demo has written:

    git worktree add --detach OLD REVISION
    python benchmarks/verify_time.py --old OLD --old-demo DIR --demo DIR -o benchmarks/results/verify_time.json

The old demo's folder is made by `PYTHONPATH=OLD:OLD/exporters:OLD/runtimes python -m robust_edge demo --out DIR`.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from result_file import provenance, write_result

ROOT = Path(__file__).parents[1]
BUNDLE, RUN = "bundles/robust-sparse", "runs/robust-sparse"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", required=True, type=Path, help="source tree of the older revision")
    parser.add_argument("--old-demo", required=True, type=Path, help="what its demo has written")
    parser.add_argument("--demo", required=True, type=Path, help="what this tree's demo has written")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    samples: dict[str, list[tuple[float, float]]] = {"old": [], "new": []}
    for _ in range(options.turns):
        samples["old"].append(timed(options.old, options.old_demo))
        samples["new"].append(timed(ROOT, options.demo))
    found = {name: medians(values) for name, values in samples.items()}
    ratios = {key: round(found["new"][key] / found["old"][key], 2) for key in ("wall_s", "cpu_s")}
    print(found, ratios)
    if options.out:
        command = "python benchmarks/verify_time.py --old TREE --old-demo DIR --demo DIR"
        result = {"old_commit": revision(options.old), "turns": options.turns, **found, "ratios": ratios}
        write_result(options.out, {**provenance(command, "torch"), **result})


def revision(tree: Path) -> str:
    """The commit that a source tree is at."""
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tree, capture_output=True, text=True, check=True)
    return found.stdout.strip()


def timed(tree: Path, demo: Path) -> tuple[float, float]:
    """Wall and CPU seconds of one verification, its child processes included."""
    path = os.pathsep.join(str(tree.resolve() / part) for part in ("", "exporters", "runtimes"))
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "robust_edge", "verify", str(demo.resolve() / BUNDLE)]
        command += ["--against", str(demo.resolve() / RUN), "--seed", "1", "-q", "-o", f"{folder}/verify.json"]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def medians(samples: list[tuple[float, float]]) -> dict[str, float]:
    """Of both figures."""
    wall, cpu = (round(statistics.median(column), 2) for column in zip(*samples, strict=True))
    return {"wall_s": wall, "cpu_s": cpu}


if __name__ == "__main__":
    main()
