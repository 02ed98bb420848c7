"""Does `bench` measure what a bare timing loop measures? Medians for one image on ONNX Runtime, interleaved in one run.

    python benchmarks/bench_harness.py [BUNDLE...] [-o benchmarks/results/bench_harness.json]

The bare loop knows nothing of robust-edge: a session, an image, two clocks. Without bundles, networks of random weights
are exported first. `harness_share` is the overhead that `bench` reports, measured with a runtime that computes nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from result_file import RESULTS, provenance, write_result
from zoo import random_bundle

from robust_edge_runtimes.bench.latency import bench, contenders
from robust_edge_runtimes.core.bundle import open_bundle

ARCHITECTURES = ("small_cnn", "mobilenet_v2", "resnet18")
TURNS = 10


def bare_loop(path: Path, images: np.ndarray, seconds: float) -> list[int]:
    """Nanoseconds of session.run on one image after the other."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    samples: list[int] = []
    feeds = [{name: images[i : i + 1]} for i in range(len(images))]
    warm, end = time.perf_counter() + seconds / 5, time.perf_counter() + 1.2 * seconds
    while time.perf_counter() < end:
        feed = feeds[len(samples) % len(feeds)]
        start = time.perf_counter_ns()
        session.run(None, feed)
        taken = time.perf_counter_ns() - start
        if time.perf_counter() > warm:
            samples.append(taken)
    return samples


def compare(path: Path, seconds: float) -> dict[str, Any]:
    """One row: medians of both, and bench divided by bare."""
    (contender,) = contenders([path])
    bundle = open_bundle(path)
    images = bundle.golden().clean
    bare: list[int] = []
    ours: list[int] = []
    shares: list[float] = []
    for _ in range(TURNS):
        bare += bare_loop(bundle.artifact_path, images, seconds)
        result = bench([contender], images=len(images), seconds=seconds)
        ours += result.entries[0].latencies[0].samples_ns
        assert result.harness is not None  # only records of earlier versions have none
        shares.append(result.harness.share)
    medians = statistics.median(bare), statistics.median(ours)
    return {
        "bundle": path.name,
        "bare_ms": round(medians[0] / 1e6, 4),
        "bench_ms": round(medians[1] / 1e6, 4),
        "bench_over_bare": round(medians[1] / medians[0], 4),
        "harness_share": round(statistics.median(shares), 4),
        "n": [len(bare), len(ours)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", type=Path)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each loop in each of the ten turns")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "bench_harness.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = given.bundles
        if not paths:
            paths = [Path(folder) / arch for arch in ARCHITECTURES]
            for path in paths:
                random_bundle(path.name, "x86-cpu", path)
        rows = [compare(path, given.seconds) for path in paths]
    result = {
        **provenance("python benchmarks/bench_harness.py", "onnxruntime"),
        "threads": 1,
        "seconds": given.seconds,
        "rows": rows,
    }
    write_result(given.out, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
