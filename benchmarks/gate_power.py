"""How often the gate passes, fails or stays undecided, by the true drop: a simulation of the sequential rule.

python benchmarks/gate_power.py -o benchmarks/results/gate_power.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from result_file import provenance, write_result

from robust_edge_runtimes.verdict.statistic import drop_of_counts, level_of_look, looks

DROPS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0)
CHURNS = (0.0, 2.0, 5.0)
IMAGES = (357, 1000, 10_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=1.0, help="points")
    parser.add_argument("--repetitions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    cells = []
    for images in IMAGES:
        for churn in CHURNS:
            for drop in DROPS:
                cells.append(
                    {"images": images, "churn": churn, "drop": drop, **simulated(images, drop, churn, options, random)}
                )
                print(cells[-1], flush=True)
    if options.out:
        settings = {"budget": options.budget, "repetitions": options.repetitions}
        write_result(
            options.out, {**provenance("python benchmarks/gate_power.py", "numpy"), **settings, "cells": cells}
        )


def simulated(
    images: int, drop: float, churn: float, options: argparse.Namespace, random: np.random.Generator
) -> dict[str, float]:
    """Shares of passes, failures and undecided verdicts, and the mean number of images that were drawn.

    Args:
        images: all that can be drawn.
        drop: true loss, in points.
        churn: images on which the two networks differ without a loss, in points: half of them lost, half gained.
    """
    lost, gained = (drop + churn / 2) / 100, churn / 200
    counts = np.zeros((options.repetitions, 2), int)
    undecided = np.ones(options.repetitions, bool)
    passed = failed = seen = drawn = 0
    for look, total in enumerate(looks(images), 1):
        counts += random.multinomial(total - seen, (lost, gained, 1 - lost - gained), options.repetitions)[:, :2]
        drawn += (total - seen) * int(undecided.sum())
        seen, level = total, level_of_look(look, last=total == images)
        for row in np.flatnonzero(undecided):
            lost_images, gained_images = counts[row].tolist()
            found = drop_of_counts(lost_images, gained_images, seen, options.budget, level)
            undecided[row] = found.undecided
            failed += found.exceeded
            passed += not found.exceeded and not found.undecided
    n = options.repetitions
    return {"pass": passed / n, "fail": failed / n, "undecided": int(undecided.sum()) / n, "drawn": drawn / n}


if __name__ == "__main__":
    main()
