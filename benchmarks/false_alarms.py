"""How often `verify` fails a good artifact by chance: repetitions of every mode with fresh seeds.

Each repetition samples new images, starts and squares. Run it on bundles of one run:

    python benchmarks/false_alarms.py --run runs/digits-10 --network "small_cnn on digits" bundles/digits-10 \
        -o benchmarks/results/false_alarms.json

Images drawn with `--limit` below the size of the test split differ from repetition to repetition; the network and
the bundle's stored images do not. The mode `rebuild` has no seed, and is run once for each bundle. A row replaces that
of the same network and target in the output file; the others stay.
"""

from __future__ import annotations

import argparse
import collections
import json
from pathlib import Path
from unittest import mock

import torch
from result_file import provenance, write_result

from robust_edge.run.directory import Run, open_run
from robust_edge.verification import verify as verification
from robust_edge.verification.new_export import compare_with_run
from robust_edge.verification.settings import VerifySettings
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.modes.settings import without_none
from robust_edge_runtimes.verdict.measurement import Budget


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--run", required=True, type=Path)
    parser.add_argument("--network", default="", help="what the run is called in the table")
    parser.add_argument("--mode", action="append", dest="modes", help="default: those of verify")
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--limit", type=int, help="images drawn per repetition; default: as many as verify needs")
    parser.add_argument("--steps", type=int, help="default: that of verify")
    parser.add_argument("--queries", type=int, help="default: that of verify")
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = open_run(options.run)
    for path in options.bundles:
        row = {"network": options.network, **repeated(path, run, options)}
        print(row, flush=True)
        if options.out:
            add_row(options.out, row)


def add_row(path: Path, row: dict[str, object]) -> None:
    """Write `row` into the file in place of the row of the same network and target."""
    command = "python benchmarks/false_alarms.py --run RUN --network NAME BUNDLE..."
    rows = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []
    own = (row["network"], row["target"])
    kept = [other for other in rows if (other["network"], other["target"]) != own]
    write_result(path, {"rows": [*kept, {**row, **provenance(command, "torch")}]})


def repeated(path: Path, run: Run, options: argparse.Namespace) -> dict[str, object]:
    bundle = open_bundle(path)
    reasons: collections.Counter[str] = collections.Counter()
    outcomes: collections.Counter[str] = collections.Counter()
    drops = []
    rebuild = compare_with_run(bundle, run, run.load_model(), None)
    for seed in range(1, options.repetitions + 1):
        settings = VerifySettings(
            modes=tuple(options.modes or ()),
            limit=options.limit,
            options=without_none({"steps": options.steps, "queries": options.queries}),
            seed=seed,
        )
        with mock.patch.object(verification, "compare_with_run", return_value=rebuild):  # equal for every seed
            verdict = verification.verify_bundle(bundle, run, Budget(), settings)
        outcomes[verdict.outcome] += 1
        reasons.update({reason.partition(":")[0] for reason in verdict.reasons})
        assert verdict.worst is not None  # every default mode that attacks gives a worst case
        drops.append(verdict.worst.robust_drop.points)
        print(f"{path.name} seed {seed}: {verdict.outcome}, {drops[-1]:.2f} points; {verdict.reasons}", flush=True)
    choices = ("modes", "limit", "steps", "queries")
    return {
        "target": bundle.manifest.target,
        "outcomes": dict(outcomes),
        "of": options.repetitions,
        "reasons": dict(reasons),
        "mean_worst_robust_drop": sum(drops) / len(drops),
        "largest": max(drops),
        "rebuild_equal": rebuild.equal,
        **{name: getattr(options, name) for name in choices},
    }


if __name__ == "__main__":
    main()
