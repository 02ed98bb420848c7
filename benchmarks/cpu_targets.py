"""Does every CPU target export, load in a fresh process, and compute what PyTorch computes, at 10% of the weights?

    python benchmarks/cpu_targets.py [--arch small_cnn resnet34 mobilenet_v2] [-o benchmarks/results/cpu_targets.json]

Random weights, the smallest nine tenths of every layer zero. A row holds the largest logit error relative to the
largest logit, the share of equal classes, and whether the artifact has exactly the non-zeros of the checkpoint without
its idle channels. Exit 1 if an fp32 target is further off than 1e-4 or has another class anywhere, or lost a zero.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result_file import RESULTS, provenance, write_result
from zoo import random_bundle, request_of

from robust_edge_exporters.compaction.compact import compact
from robust_edge_exporters.target import targets
from robust_edge_runtimes.core.bundle import open_bundle

ARCHITECTURES = ("small_cnn", "resnet34", "mobilenet_v2")
MAX_ERROR = 1e-4
FRESH = (
    "import sys, numpy as np\n"
    "from robust_edge_runtimes import load, open_bundle\n"
    "golden = open_bundle(sys.argv[1]).golden()\n"
    "with load(sys.argv[1]) as model:\n"
    "    np.save(sys.argv[2], model.infer_all(np.concatenate([golden.clean, golden.attacked])))\n"
)


def cpu_targets() -> list[str]:
    """Names of the targets whose artifact a CPU executes."""
    return [name for name, target in targets().items() if "cpu" in target.family and target.jetpack is None]


def check(arch: str, target: str, folder: Path) -> dict[str, Any]:
    """One row: exported, loaded by a process of its own, compared with PyTorch."""
    start = time.perf_counter()
    request = request_of(arch, target)
    exported = random_bundle(arch, target, folder / "bundle")
    subprocess.run([sys.executable, "-c", FRESH, str(folder / "bundle"), str(folder / "logits.npy")], check=True)
    golden = open_bundle(folder / "bundle").golden()
    images = torch.from_numpy(np.concatenate([golden.clean, golden.attacked]))
    with torch.no_grad():
        expected = request.model(images).numpy()
    logits = np.load(folder / "logits.npy")
    error = float(np.abs(logits - expected).max() / np.abs(expected).max())
    agreement = float((logits.argmax(1) == expected.argmax(1)).mean())
    left = compact(request.model, request.shape, request.sparsity).sparsity
    exact = exported.manifest.sparsity.nonzero == left.nonzero
    faithful = error <= MAX_ERROR and agreement == 1
    return {
        "arch": arch,
        "target": target,
        "precision": exported.manifest.artifact.precision,
        "max_logit_error": error,
        "argmax_agreement": agreement,
        "zeros_exact": exact,
        "holds": exact and (faithful or exported.manifest.artifact.precision != "fp32"),
        "seconds": round(time.perf_counter() - start, 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", choices=ARCHITECTURES, default=ARCHITECTURES)
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "cpu_targets.json")
    given = parser.parse_args()
    rows = []
    for arch in given.arch:
        for target in cpu_targets():
            with tempfile.TemporaryDirectory() as folder:
                rows.append(check(arch, target, Path(folder)))
            print(json.dumps(rows[-1]), flush=True)
    result = {
        **provenance("python benchmarks/cpu_targets.py", "torch"),
        "rows": rows,
    }
    write_result(given.out, result)
    return 0 if all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
