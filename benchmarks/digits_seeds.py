"""How much robustness does sparsity cost on digits? Dense, 10% and 5% kept, three seeds each, PGD-50 at ε = 0.1.

    python benchmarks/digits_seeds.py --out digits-seeds [-o benchmarks/results/digits_seeds]

Small CNN, preset `quick`; every network is evaluated on all 357 test images. Writes a JSON and a Markdown file. An
interrupted run continues when it is started again.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from pathlib import Path
from typing import Any

import torch
from result_file import RESULTS
from trial_grid import attacked, markdown, trained, training_seconds, write_results

from robust_edge.config.settings import resolve

EPS, STEPS = 0.1, 50
KEEPS = (1.0, 0.1, 0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("digits-seeds"), help="folder of the runs")
    parser.add_argument("-o", "--result", type=Path, default=RESULTS / "digits_seeds", help="result, without suffix")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="train for less long, to try this script")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for seed in arguments.seeds:
        for keep in KEEPS:
            flags = {"pruning.keep": keep, "attack.eps": EPS, "seed": seed, "training.epochs": arguments.epochs}
            config = resolve(preset="quick", flags={**flags, "threads": 1, "device": "cpu"})
            run = trained(config, arguments.out / f"keep-{keep:g}-seed-{seed}")
            result = attacked(run, eps=EPS, steps=STEPS)
            rows.append(
                {
                    "keep": keep,
                    "seed": seed,
                    "nonzero": run.checkpoint().sparsity.nonzero,
                    "weights": run.checkpoint().sparsity.weights,
                    "clean": dataclasses.asdict(result.clean),
                    "robust": dataclasses.asdict(result.robust),
                    "training_seconds": training_seconds(run),
                }
            )
    summary = [summarise(rows, keep) for keep in KEEPS]
    results = {"eps": EPS, "steps": STEPS, "seeds": arguments.seeds, "runs": rows, "summary": summary}
    write_results(arguments.result, "python benchmarks/digits_seeds.py", results, table(rows, summary, arguments.seeds))


def summarise(rows: list[dict[str, Any]], keep: float) -> dict[str, Any]:
    """Means over the seeds, and the points that the dense network of the same seed is ahead."""
    dense = {row["seed"]: row["robust"]["value"] for row in rows if row["keep"] == 1.0}
    own = [row for row in rows if row["keep"] == keep]
    drops = [100 * (dense[row["seed"]] - row["robust"]["value"]) for row in own]
    return {
        "keep": keep,
        "clean": statistics.mean(row["clean"]["value"] for row in own),
        "robust": statistics.mean(row["robust"]["value"] for row in own),
        "mean_drop_points": statistics.mean(drops),
        "largest_drop_points": max(drops),
    }


def table(rows: list[dict[str, Any]], summary: list[dict[str, Any]], seeds: list[int]) -> str:
    header = ["kept", "clean", *(f"PGD-{STEPS}, seed {seed}" for seed in seeds), "mean", "behind dense, mean", "most"]
    lines = []
    for line in summary:
        own = {row["seed"]: row["robust"]["value"] for row in rows if row["keep"] == line["keep"]}
        lines.append(
            [
                f"{100 * line['keep']:g}%",
                f"{100 * line['clean']:.1f}%",
                *(f"{100 * own[seed]:.1f}%" for seed in seeds),
                f"{100 * line['robust']:.1f}%",
                *(
                    f"{line[name]:.1f} points" if line["keep"] < 1 else "-"
                    for name in ("mean_drop_points", "largest_drop_points")
                ),
            ]
        )
    return markdown(header, lines)


if __name__ == "__main__":
    main()
