"""Is our PGD the one of the field? Robust accuracy under it and under foolbox's, at equal ε, steps and step size.

    python benchmarks/pgd_agreement.py [--cifar data/cifar10] [-o benchmarks/results/pgd_agreement.json]

Small networks are trained first: benign and robust on digits, and with --cifar (a folder of train/CLASS/* and
test/CLASS/*) on a subset of that. Both attacks start from the same points, the image itself or a random one near it,
since different starts would change a figure by a point or two by chance alone. `ours_every_iterate` is what
`evaluate --attack pgd` counts: an image is not robust if any iterate fools the network. Exit 1 if the last iterates'
figures are more than a point apart.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import foolbox
import torch
from eagerpy.astensor import astensor
from foolbox.models.pytorch import PyTorchModel
from result_file import RESULTS, provenance, write_result
from torch import Tensor, nn

from robust_edge.attacks.ball import start_points
from robust_edge.attacks.pgd import Pgd, attack_from, last_iterate
from robust_edge.config.settings import resolve
from robust_edge.run.directory import Run, open_run
from robust_edge.run.images import evaluation_images
from robust_edge.training.compress import compress
from robust_edge_runtimes.attacks.threat import Threat

STEPS = 20
ATTACKS = {"linf": "LinfPGD", "l2": "L2PGD"}
DIGITS = {"benign": {"attack.eps": 0.0, "pruning.keep": 1.0}, "robust": {"attack.eps": 0.1, "pruning.keep": 1.0}}
CIFAR = {"benign": {"attack.eps": 0.0, "pruning.keep": 1.0}, "robust": {"attack.eps": 4 / 255, "pruning.keep": 1.0}}


def right(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in images.split(128)]) == labels


def theirs(model: nn.Module, images: Tensor, labels: Tensor, eps: float, norm: str, start: Tensor) -> Tensor:
    """(N,) bool, right on foolbox's last image."""
    attack = getattr(foolbox.attacks, ATTACKS[norm])(abs_stepsize=2.5 * eps / STEPS, steps=STEPS, random_start=True)
    wrapped = PyTorchModel(model, bounds=(0, 1))
    fooled = []
    for x, y, begin in zip(images.split(128), labels.split(128), start.split(128), strict=True):
        attack.get_random_start = lambda x0, epsilon, begin=begin: astensor(begin)
        fooled.append(attack(wrapped, x, y, epsilons=eps)[2])
    return ~torch.cat(fooled)


def ours(
    model: nn.Module, images: Tensor, labels: Tensor, eps: float, norm: str, start: Tensor
) -> tuple[Tensor, Tensor]:
    """(N,) bool each: right on our last image, and on every iterate."""
    attack, threat = Pgd(steps=STEPS, restarts=1, step_size=2.5 * eps / STEPS), Threat(eps, norm)
    last = last_iterate(model, images, labels, attack, threat, start)
    worst = attack_from(model, images, labels, attack, threat, start)
    return right(model, last, labels), worst.robust


def compared(name: str, run: Run, limit: int, radii: Mapping[str, float]) -> list[dict[str, Any]]:
    """Rows of one network."""
    model, split = run.load_model(), evaluation_images(run, limit=limit)
    images, labels = split.floats(slice(None)), split.labels
    clean = right(model, images, labels)
    rows = []
    for norm, eps in radii.items():
        for random_start in (False, True):
            start = start_points(images, Threat(eps, norm), 0, range(len(images)), 0) if random_start else images
            held = theirs(model, images, labels, eps, norm, start)
            last, every = ours(model, images, labels, eps, norm, start)
            figures = [round(100 * float((clean & item).float().mean()), 2) for item in (held, last, every)]
            rows.append(
                {
                    "network": name,
                    "norm": norm,
                    "eps": round(eps, 5),
                    "random_start": random_start,
                    "images": len(labels),
                    "clean": round(100 * float(clean.float().mean()), 2),
                    "foolbox": figures[0],
                    "ours_last": figures[1],
                    "ours_every_iterate": figures[2],
                    "points_apart": round(figures[1] - figures[0], 2),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def trained(folder: Path, name: str, flags: Mapping[str, Any]) -> Run:
    compress(resolve(preset="quick", flags={"threads": 1, **flags}), folder / name)
    return open_run(folder / name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, help="a folder data set; without it digits alone are compared")
    parser.add_argument("--limit", type=int, default=300, help="test images of each network")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "pgd_agreement.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for network, flags in DIGITS.items():
            run = trained(folder, f"digits-{network}", {**flags, "training.epochs": 12})
            rows += compared(f"digits {network}", run, given.limit, {"linf": 0.1, "l2": 0.6})
        for network, flags in CIFAR.items() if given.cifar is not None else ():
            data = {"data.dataset": "folder", "data.dir": str(given.cifar), "data.limit_train": 1000}
            data["data.limit_test"] = given.limit
            run = trained(folder, f"cifar-{network}", {**flags, **data, "training.epochs": 3})
            rows += compared(f"CIFAR-10 subset {network}", run, given.limit, {"linf": 4 / 255, "l2": 0.25})
    result = {
        **provenance(f"python benchmarks/pgd_agreement.py{' --cifar DIR' if given.cifar else ''}", "torch", "foolbox"),
        "steps": STEPS,
        "step_size": "2.5 eps / steps",
        "rows": rows,
        "largest_gap": max(abs(row["points_apart"]) for row in rows),
    }
    write_result(given.out, result)
    return 0 if result["largest_gap"] <= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
