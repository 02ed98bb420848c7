"""A verdict and a bench result, made up."""

import dataclasses

from robust_edge_runtimes.bench.cold_start import ColdStart
from robust_edge_runtimes.bench.protocols import N_IMAGES, ONE_IMAGE
from robust_edge_runtimes.bench.results import Bench, Entry, summarise
from robust_edge_runtimes.core.environment import Machine
from robust_edge_runtimes.core.files import write_json
from robust_edge_runtimes.core.manifest import AttackSpec
from robust_edge_runtimes.core.runtime import RuntimeInfo
from robust_edge_runtimes.verdict.judge import Verdict
from robust_edge_runtimes.verdict.measurement import ModeResult, Parity
from robust_edge_runtimes.verdict.statistic import Drop

ARTIFACT = "a" * 64
MACHINE = Machine("Test CPU", "x86_64", 2, "Linux", "3.11", "2.0", None, None, "2026-01-01T00:00:00+00:00")
RUNTIME = RuntimeInfo("onnxruntime", "1.2.3", "cpu", "CPUExecutionProvider", 1)


def verdict_of(run, **changes):
    drop = Drop(0.0, -0.5, 0.5, 1.0)
    mode = ModeResult("replay", AttackSpec("pgd", 0.1, 20, 0.0125, 0), 357, 0.99, 0.98, 0.91, 0.905, drop, drop)
    sha = run.checkpoint().weights_sha256
    parity = Parity(1e-7, 1e-3, 1.0)
    verdict = Verdict("pass", True, (), (), (), "x86-cpu", ARTIFACT, sha, RUNTIME, MACHINE, parity, (mode,), ())
    return dataclasses.replace(verdict, **changes)


def bench_of(*, wobble=1.0):
    def entry(label, sha, scale, speedup):
        calls = [summarise(ONE_IMAGE, 1, [[20_000 * scale, 22_000 * scale], [int(20_000 * scale * wobble)] * 2])]
        calls.append(summarise(N_IMAGES, 100, [[1_000_000 * scale] * 2, [1_100_000 * scale] * 2]))
        both = {ONE_IMAGE: speedup, N_IMAGES: speedup}
        cold = ColdStart(10**8, 10**6, 2**26)
        return Entry(label, "x86-cpu", sha, 400_000, 0.1, RUNTIME, cold, 1e-7, tuple(calls), both, dense_kernels=True)

    return Bench(MACHINE, 1, "dense", (entry("dense", "d" * 64, 2, 1.0), entry("tenth", ARTIFACT, 1, 2.0)))


def written(value, path):
    write_json(path, dataclasses.asdict(value))
    return path
