"""How often the gate passes, fails or stays undecided, by the true drop: a simulation of the sequential rule.

python benchmarks/gate_power.py            # the tables of docs/verification.md
"""

from __future__ import annotations

import argparse

import numpy as np

from robust_edge_runtimes.verdict.statistic import drop_of_counts, level_of_look, looks

DROPS = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0)
CHURNS = (0.0, 2.0, 5.0)
IMAGES = (357, 1000, 10_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=1.0, help="points")
    parser.add_argument("--repetitions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random = np.random.default_rng(options.seed)
    for images in IMAGES:
        print(f"\nAt most {images} images: pass / fail / undecided in %, mean number of images\n")
        print("| churn | " + " | ".join(f"drop {drop:g}" for drop in DROPS) + " |")
        print("|---" * (len(DROPS) + 1) + "|")
        for churn in CHURNS:
            cells = [_cell(simulated(images, drop, churn, options, random)) for drop in DROPS]
            print(f"| {churn:g}% | " + " | ".join(cells) + " |")


def simulated(
    images: int, drop: float, churn: float, options: argparse.Namespace, random: np.random.Generator
) -> tuple[float, float, float, float]:
    """Shares of passes, failures and undecided verdicts, and the mean number of images.

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
    return passed / n, failed / n, int(undecided.sum()) / n, drawn / n


def _cell(shares: tuple[float, float, float, float]) -> str:
    passed, failed, undecided, images = shares
    return f"{100 * passed:.3g} / {100 * failed:.3g} / {100 * undecided:.3g}, {images:.0f}"


if __name__ == "__main__":
    main()
