"""How far the logits of a rounded artifact are off on images that its export has not seen, against what the export saw.

    python benchmarks/rounded_parity.py [-o benchmarks/results/rounded_parity.json]

An export of rounded numbers (int8, fp16 weights) records the largest logit error on its golden images, clean and
attacked, and allows HEADROOM times that error (exporters/robust_edge_exporters/bundle.py). `verify` compares the
artifact with the checkpoint on other images, of which a share of OUTLIERS may be further off
(robust_edge_runtimes/verdict/checks.py). Small CNNs on digits, a seed each, in several strengths of pruning; the
images are all test images that the bundle does not hold, clean and where PGD against the checkpoint left them. A row
has the error on the clean ones over the one on the golden images, and the share of either that lies beyond the
tolerance. Exit 1 if a good artifact is off on more images than is allowed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result_file import RESULTS, provenance, write_result

from robust_edge.attacks.pgd import Pgd
from robust_edge.config.export import ExportChoices, GoldenSettings
from robust_edge.config.settings import resolve
from robust_edge.evaluation.accuracy import attack_split
from robust_edge.export import export_run
from robust_edge.run.directory import Run, open_run
from robust_edge.run.images import evaluation_images
from robust_edge.training.compress import compress
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.closeness import OUTLIERS
from robust_edge_runtimes.load import load
from robust_edge_runtimes.scoring import relative_error, share_above

KINDS = {"int8": ("x86-cpu-int8", None), "fp16 weights": ("x86-cpu-sparse", "fp16")}
KEEPS = (1.0, 0.5, 0.1)
GOLDEN = (100, 200)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, help="networks for each fraction kept")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "rounded_parity.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for keep in KEEPS:
            for seed in range(given.seeds):
                rows += network_rows(Path(folder) / f"{keep}-{seed}", keep, seed)
    for kind in KINDS:
        ratios = sorted(row["ratio"] for row in rows if row["kind"] == kind)
        outliers = max(
            share for row in rows if row["kind"] == kind for share in (row["outliers"], row["attacked_outliers"])
        )
        print(f"{kind}: {len(ratios)} artifacts, error {np.median(ratios):.2f} times the golden one (median), at most")
        print(f"    {ratios[-1]:.2f} times; beyond tolerance at most {outliers:.1%} of an artifact's images")
    report = {**provenance("python benchmarks/rounded_parity.py", "torch", "onnxruntime"), "rows": rows}
    write_result(given.out, report)
    return int(
        any(max(row["outliers"], row["attacked_outliers"]) > OUTLIERS.get(row["precision"], 0.0) for row in rows)
    )


def network_rows(folder: Path, keep: float, seed: int) -> list[dict[str, Any]]:
    """One network's rows."""
    flags = {"pruning.keep": keep, "seed": seed, "training.epochs": 8, "attack.steps": 3, "threads": 1}
    compress(resolve(preset="quick", flags=flags), folder / "run")
    run, rows = open_run(folder / "run"), []
    for kind, (target, precision) in KINDS.items():
        for images in GOLDEN:
            rows.append(artifact_row(run, folder / f"{kind}-{images}", kind, target, precision, images))
            rows[-1] |= {"keep": keep, "seed": seed}
            print(rows[-1], flush=True)
    return rows


def artifact_row(run: Run, path: Path, kind: str, target: str, precision: str | None, golden: int) -> dict[str, Any]:
    """One artifact: its error on the golden images and on the others."""
    settings, choices = GoldenSettings(images=golden), ExportChoices(precision=precision)
    export_run(run, target_named(target), path, golden=settings, choices=choices)
    bundle, network = open_bundle(path), run.load_model()
    split = evaluation_images(run)
    others = split.take(torch.arange(golden, len(split)))
    attacked = attack_split(network, others, Pgd(steps=20), Threat(run.config.attack.eps), seed=1).images
    assert bundle.manifest.parity is not None  # export_run always measures it
    seen, tolerance = bundle.manifest.parity.max_logit_error, bundle.golden().tolerance
    with torch.no_grad(), load(bundle) as model:
        answers = [(model.infer_all(x.numpy()), network(x).numpy()) for x in (others.floats(slice(None)), attacked)]
    error = relative_error(*answers[0])
    return {
        "kind": kind,
        "precision": bundle.manifest.artifact.precision,
        "golden": golden,
        "others": len(others),
        "golden_error": seen,
        "error": error,
        "ratio": error / seen,
        "outliers": share_above(tolerance, *answers[0]),
        "attacked_outliers": share_above(tolerance, *answers[1]),
    }


if __name__ == "__main__":
    sys.exit(main())
