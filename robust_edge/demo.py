"""The whole pipeline on scikit-learn's digits with three networks: benign dense, robust dense, robust sparse."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from robust_edge.config.export import GoldenSettings
from robust_edge.config.settings import resolve
from robust_edge.evaluation.evaluate import evaluate_run
from robust_edge.evaluation.settings import EvaluateSettings
from robust_edge.export import export_run
from robust_edge.reporting.page import write_report
from robust_edge.run.directory import Run, open_run
from robust_edge.training.compress import compress
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.verify import verify_bundle
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.bench import latency
from robust_edge_runtimes.bench.protocols import ONE_IMAGE
from robust_edge_runtimes.bench.results import Bench
from robust_edge_runtimes.cli.output import Output
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import write_json
from robust_edge_runtimes.core.folders import check_new_directory
from robust_edge_runtimes.present.tables import percent, table
from robust_edge_runtimes.verdict.judge import Verdict
from robust_edge_runtimes.verdict.measurement import Budget

EPS, KEEP, STEPS = 0.1, 0.1, 50
CURVE_IMAGES = 100  # for one figure of the report, instead of all 357
NETWORKS = {
    "benign-dense": {"attack.eps": 0.0, "pruning.keep": 1.0},
    "robust-dense": {"attack.eps": EPS, "pruning.keep": 1.0},
    "robust-sparse": {"attack.eps": EPS, "pruning.keep": KEEP},
}
EXPORTED = ("robust-dense", "robust-sparse")
MARKER = "DEMO"  # file that marks a folder as a demo, which --overwrite may delete


@dataclasses.dataclass(frozen=True)
class DemoRow:
    """One network: accuracies in [0, 1] and their validity flags."""

    network: str
    weights: int
    nonzero: int
    clean_accuracy: float
    robust_accuracy: float
    flags: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class DemoSummary:
    """The results of the demo.

    Attributes:
        speedup: median latency of one image of the dense bundle, divided by that of the sparse bundle.
    """

    rows: tuple[DemoRow, ...]
    eps: float
    steps: int
    verdict_passed: bool
    verdict: str
    speedup: float
    bundle: str
    report: str


def run_demo(out: Path, *, overwrite: bool, seed: int, output: Output) -> DemoSummary:
    """Train, evaluate, export, verify, time and report into `out`.

    Raises:
        InputError: `out` exists and `overwrite` is off, or it is not an older demo.
    """
    _create_folder(out, overwrite=overwrite)
    runs = {name: _train(out / "runs" / name, flags, seed, output) for name, flags in NETWORKS.items()}
    rows = tuple(_evaluate(name, run, output) for name, run in runs.items())
    bundles = {name: out / "bundles" / name for name in EXPORTED}
    for name, path in bundles.items():
        output.note(f"exporting {name}")
        export_run(runs[name], target_named("x86-cpu"), path, golden=GoldenSettings(steps=STEPS, seed=seed))
    verdict = _verify(bundles["robust-sparse"], runs["robust-sparse"], out, output)
    timing = _bench(bundles, out, output)
    write_report(list(runs.values()), (out / "verify.json",), (out / "bench.json",), out / "report.html")
    return DemoSummary(
        rows=rows,
        eps=EPS,
        steps=STEPS,
        verdict_passed=verdict.passed,
        verdict=": ".join(
            [verdict.outcome.upper(), *filter(None, ["; ".join((*verdict.reasons, *verdict.undecided))])]
        ),
        speedup=timing.entries[1].speedup[ONE_IMAGE],
        bundle=str(bundles["robust-sparse"]),
        report=str(out / "report.html"),
    )


def summary_table(summary: DemoSummary) -> str:
    """The summary as text."""
    rows = [
        [
            row.network,
            f"{row.nonzero} / {row.weights}",
            percent(row.nonzero / row.weights),
            percent(row.clean_accuracy),
            percent(row.robust_accuracy),
        ]
        for row in summary.rows
    ]
    header = ["network", "weights kept", "kept", "clean", f"PGD-{summary.steps} eps={summary.eps:g}"]
    lines = [
        table(header, rows),
        *(f"FLAG {row.network}: {flag}" for row in summary.rows for flag in row.flags),
        "",
        f"verdict on the exported artifact: {summary.verdict}",
        f"speed-up of the sparse network on ONNX Runtime, which has only dense kernels: {summary.speedup:.2f}x",
        f"bundle: {summary.bundle}",
        f"report: {summary.report}",
    ]
    return "\n".join(lines)


def _create_folder(out: Path, *, overwrite: bool) -> None:
    check_new_directory(out, overwrite=overwrite)
    if out.is_dir() and any(out.iterdir()):
        if not (out / MARKER).is_file():
            raise InputError(f"{out} exists and is not a demo; choose another folder, `overwrite` replaces demos only")
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).write_text("Written by `robust-edge demo`. `robust-edge demo --overwrite` replaces this folder.\n")


def _train(path: Path, flags: dict[str, float], seed: int, output: Output) -> Run:
    config = resolve(preset="quick", flags={**flags, "seed": seed})
    compress(config, path, progress=output.progress(f"training {path.name}"))
    return open_run(path)


def _evaluate(name: str, run: Run, output: Output) -> DemoRow:
    settings = EvaluateSettings(attack="pgd", eps=EPS, steps=STEPS)
    attacked = evaluate_run(run, settings, progress=output.progress(f"attacking {name}"))
    evaluate_run(
        run, EvaluateSettings(attack="curve", limit=CURVE_IMAGES), progress=output.progress(f"increasing eps on {name}")
    )
    counts = run.checkpoint().sparsity
    assert attacked.result is not None
    assert attacked.audit is not None
    clean, robust = attacked.result.clean.value, attacked.result.robust.value
    return DemoRow(name, counts.weights, counts.nonzero, clean, robust, attacked.audit.flags)


def _verify(bundle: Path, run: Run, out: Path, output: Output) -> Verdict:
    verdict = verify_bundle(open_bundle(bundle), run, Budget(), VerifySettings(), progress=output.progress)
    write_json(out / "verify.json", dataclasses.asdict(verdict))
    return verdict


def _bench(bundles: dict[str, Path], out: Path, output: Output) -> Bench:
    contenders = [latency.Contender(name, open_bundle(path)) for name, path in bundles.items()]
    result = latency.bench(contenders, progress=output.progress("timing"))
    write_json(out / "bench.json", dataclasses.asdict(result))
    return result
