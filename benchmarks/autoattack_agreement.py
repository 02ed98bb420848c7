"""Is our AutoAttack the reference's? Both sets at full length, image by image, on common checkpoints.

    python benchmarks/autoattack_agreement.py [--limit 32] [-o benchmarks/results/autoattack_agreement.json]

Two small digits networks are trained first, benign and robust. On each, `evaluate --attack autoattack` (ℓ∞ and ℓ2) and
`--attack thesis-autoattack` (ℓ∞) stand against pyautoattack with the same seed and batch size: its attacks called one
by one, each on the images that the ones before have left, and for the standard set its own `run_standard_evaluation`
as well. Compared is every image's outcome: wrong when clean, robust, or broken by which attack. Exit 1 if any differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from pyautoattack import AutoAttack
from result_file import RESULTS, provenance, write_result
from torch import Tensor, nn

from robust_edge.config.settings import resolve
from robust_edge.evaluation.evaluate import evaluate_run
from robust_edge.evaluation.outcome import ROBUST, WRONG_WHEN_CLEAN
from robust_edge.evaluation.settings import EvaluateSettings
from robust_edge.run.directory import Run, open_run
from robust_edge.run.images import evaluation_images
from robust_edge.training.compress import compress

AUTOATTACK, THESIS_AUTOATTACK = "autoattack", "thesis-autoattack"
NETWORKS = {"benign": {"attack.eps": 0.0, "pruning.keep": 1.0}, "robust": {"attack.eps": 0.1, "pruning.keep": 1.0}}
NORMS = {"linf": "Linf", "l2": "L2"}
COMPARED = ((AUTOATTACK, "linf", 0.1), (AUTOATTACK, "l2", 0.6), (THESIS_AUTOATTACK, "linf", 0.1))
STAGES = {
    AUTOATTACK: ("apgd-ce", "apgd-t", "fab-t", "square"),
    THESIS_AUTOATTACK: ("apgd-ce", "apgd-dlr", "fab", "square"),
}
SEED, BATCH = 3, 16


def right(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model(images)
    return logits.argmax(1) == labels


def suite_of(model: nn.Module, attack: str, norm: str, eps: float) -> AutoAttack:
    version, names = ("standard", None) if attack == AUTOATTACK else ("custom", list(STAGES[attack]))
    suite = AutoAttack(model, attacks=names, norm=NORMS[norm], eps=eps, seed=SEED, version=version)
    suite.verbose = False
    return suite


def one_by_one(model: nn.Module, images: Tensor, labels: Tensor, attack: str, norm: str, eps: float) -> list[str]:
    """The outcome of every image under the reference's attacks, called by hand."""
    suite = suite_of(model, attack, norm, eps)
    attacks = {"apgd-t": suite.apgd_targeted, "fab": suite.fab, "fab-t": suite.fab, "square": suite.square}
    alive = right(model, images, labels)
    outcomes = [ROBUST if item else WRONG_WHEN_CLEAN for item in alive.tolist()]
    for name in STAGES[attack]:
        by = attacks.get(name, suite.apgd)
        if by is suite.apgd:
            by.loss = name.removeprefix("apgd-")
        if by is suite.fab:
            by.targeted = name == "fab-t"
        for rows in alive.nonzero().squeeze(1).split(BATCH):
            by.seed = SEED
            broken = ~right(model, by.perturb(images[rows].clone(), labels[rows].clone()), labels[rows])
            for row in rows[broken].tolist():
                outcomes[row] = name
                alive[row] = False
    return outcomes


def compared(name: str, run: Run, limit: int, attack: str, norm: str, eps: float) -> dict[str, Any]:
    """One row: our record against the reference."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        settings = EvaluateSettings(attack=attack, norm=norm, eps=eps, limit=limit, seed=SEED, batch=BATCH)
        result = evaluate_run(run, settings, Path(folder) / "record.json").result
    assert result is not None  # only an attack with radii of its own has a curve instead
    model, split = run.load_model(), evaluation_images(run)
    rows = torch.tensor(result.positions)
    images, labels = split.floats(rows), split.labels[rows]
    outcomes = one_by_one(model, images, labels, attack, norm, eps)
    row = {
        "network": name,
        "attack": attack,
        "norm": norm,
        "eps": eps,
        "images": len(outcomes),
        "clean": result.clean.correct,
        "robust": result.robust.correct,
        "robust_one_by_one": outcomes.count(ROBUST),
        "broken_by": {stage.name: stage.broken for stage in result.stages},
        "outcomes_that_differ": sum(a != b for a, b in zip(result.outcomes, outcomes, strict=True)),
    }
    if attack == AUTOATTACK:
        found, _ = suite_of(model, attack, norm, eps).run_standard_evaluation(images, labels, batch_size=BATCH)
        held = (right(model, found, labels) & right(model, images, labels)).tolist()
        row["images_that_differ_from_run_standard_evaluation"] = sum(
            (outcome == ROBUST) != item for outcome, item in zip(result.outcomes, held, strict=True)
        )
    row["seconds"] = round(time.monotonic() - start, 1)
    print(json.dumps(row), flush=True)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=32, help="test images of each network")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "autoattack_agreement.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, flags in NETWORKS.items():
            path = Path(folder) / name
            compress(resolve(preset="quick", flags={"threads": 1, "training.epochs": 12, **flags}), path)
            rows += [compared(f"digits {name}", open_run(path), given.limit, *item) for item in COMPARED]
    differing = [value for row in rows for key, value in row.items() if "differ" in key]
    result = {
        **provenance(f"python benchmarks/autoattack_agreement.py --limit {given.limit}", "torch", "pyautoattack"),
        "seed": SEED,
        "batch": BATCH,
        "rows": rows,
        "differing": sum(differing),
    }
    write_result(given.out, result)
    return 0 if differing and not any(differing) else 1


if __name__ == "__main__":
    sys.exit(main())
