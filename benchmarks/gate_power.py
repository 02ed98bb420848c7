"""How large a true drop has to be before the gate fails, and how often it fails a drop within its budget.

Exact, no simulation: lost and gained images are trinomial, and every outcome's verdict is computed.

    python benchmarks/gate_power.py            # the table of docs/verification.md
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from robust_edge_runtimes.verdict.statistic import Z95


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=1.0, help="points")
    parser.add_argument("--gained", type=float, default=0.0, help="points that the artifact gains on other images")
    options = parser.parse_args()
    drops = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
    print("| images | " + " | ".join(f"{drop:g}" for drop in drops) + " | found in 9 of 10 |")
    print("|---" * (len(drops) + 2) + "|")
    for images in (50, 100, 200, 357, 500, 1000, 2000, 10_000):
        row = [failing(images, drop, options.gained, options.budget) for drop in drops]
        sizes = np.arange(options.budget, 40, 0.1)
        least = next((d for d in sizes if failing(images, d, options.gained, options.budget) >= 0.9), None)
        cells = " | ".join("0" if value < 5e-5 else f"{100 * value:.3g}%" for value in row)
        print(f"| {images} | {cells} | {'–' if least is None else f'{least:.1f}'} |")


def failing(images: int, drop: float, gained: float, budget: float) -> float:
    """The probability that the gate fails, `drop` and `gained` in points of the images."""
    lost_share, gained_share = (drop + gained) / 100, gained / 100
    lost = np.arange(images + 1)
    total = 0.0
    for won in range(images + 1 if gained else 1):
        weight = _log_trinomial(images, lost, won, lost_share, gained_share)
        b, c, size = lost + 0.5, won + 0.5, images + 2.0
        low = 100 * ((b - c) / size - Z95 * np.sqrt(b + c - (b - c) ** 2 / size) / size)
        total += float(np.exp(weight[low > budget]).sum())
    return total


def _log_trinomial(n: int, lost: np.ndarray, won: int, p: float, q: float) -> np.ndarray:
    rest = n - lost - won
    valid = rest >= 0
    log = np.full(len(lost), -np.inf)
    gamma = np.vectorize(math.lgamma)
    k, r = lost[valid], rest[valid]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = [np.where(count == 0, 0.0, count * np.log(share)) for count, share in ((k, p), (r, 1 - p - q))]
    won_term = 0.0 if won == 0 else won * math.log(q)
    log[valid] = (
        math.lgamma(n + 1) - gamma(k + 1) - math.lgamma(won + 1) - gamma(r + 1) + terms[0] + terms[1] + won_term
    )
    return log


if __name__ == "__main__":
    main()
