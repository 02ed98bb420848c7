"""The drop of every CPU artifact of one run, each exported, attacked in the given modes, with its verdict.

    python benchmarks/verify_targets.py runs/resnet18 --limit 200 -o drops.json

Bundles are written to a temporary folder and thrown away.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

import torch
from result_file import provenance, write_result

from robust_edge.config.export import GoldenSettings
from robust_edge.export import export_run
from robust_edge.run.directory import open_run
from robust_edge.verification.modes.table import MODES
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.verify import verify_bundle
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.present.verdict import verdict_table
from robust_edge_runtimes.verdict.measurement import Budget

TARGETS = ("x86-cpu", "x86-cpu-int8", "x86-cpu-csr", "x86-cpu-sparse")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--target", action="append", dest="targets", help=f"default: {', '.join(TARGETS)}")
    parser.add_argument(
        "--mode", action="append", dest="modes", choices=[mode.name for mode in MODES], help="default: those of verify"
    )
    parser.add_argument("--golden", type=int, default=512, help="images stored in each bundle")
    parser.add_argument("--limit", type=int, default=500, help="images drawn")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--data-dir")
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    run, verdicts = open_run(options.run), {}
    settings = VerifySettings(
        modes=tuple(options.modes or ()),
        limit=options.limit,
        options={"steps": options.steps, "queries": options.queries},
        data_dir=options.data_dir,
    )
    golden = GoldenSettings(images=options.golden, steps=options.steps)
    for name in options.targets or TARGETS:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "bundle"
            export_run(run, target_named(name), path, golden=golden, data_dir=options.data_dir)
            verdict = verify_bundle(open_bundle(path), run, Budget(), settings)
        verdicts[name] = dataclasses.asdict(verdict)
        print(f"{name}\n{verdict_table(verdict)}\n", flush=True)
    if options.out:
        write_result(
            options.out, {**provenance("python benchmarks/verify_targets.py RUN", "torch"), "verdicts": verdicts}
        )


if __name__ == "__main__":
    main()
