"""Counts the passes through a network that `robust-edge verify` takes per image and mode, with the default settings.

    python benchmarks/verify_passes.py BUNDLE RUN -o benchmarks/results/verify_passes.json

They do not depend on the machine, and hardly on the network: an image that both networks get wrong is attacked no more.
"""

from __future__ import annotations

import argparse
import collections
from pathlib import Path
from typing import Any

from result_file import provenance, write_result

from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.run.directory import open_run
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.verify import verify_bundle
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.verdict.measurement import Budget

KINDS = {"artifact": (BaseRuntime, "infer"), "torch": (TorchOracle, "logits")}
KINDS["torch with gradients"] = (TorchOracle, "logits_and_gradient")
GRADIENT = 3  # a pass with gradients costs as much as this many without


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    counts: dict[str, collections.Counter[str]] = {"before": collections.Counter()}
    for kind, (cls, name) in KINDS.items():
        count(cls, name, kind, counts)
    settings = VerifySettings(seed=1)
    verdict = verify_bundle(
        open_bundle(options.bundle),
        open_run(options.run),
        Budget(),
        settings,
        progress=lambda label: counts.update({label.split()[0]: collections.Counter()}),
    )
    images = max(mode.images for mode in verdict.modes)
    rows = {mode: {kind: round(passes / images, 1) for kind, passes in row.items()} for mode, row in counts.items()}
    total = round(sum(row.get(kind, 0.0) * weight for row in rows.values() for kind, weight in weights().items()))
    for mode, row in rows.items():
        print(f"{mode:12s}", row)
    print(f"in all as much as {total} passes per image without gradients")
    if options.out:
        command = "python benchmarks/verify_passes.py BUNDLE RUN"
        record = {"images": images, "per_image": rows, "forward_passes": total}
        write_result(options.out, {**provenance(command, "torch"), **record})


def weights() -> dict[str, int]:
    return {kind: GRADIENT if "gradients" in kind else 1 for kind in KINDS}


def count(cls: Any, name: str, kind: str, counts: dict[str, collections.Counter[str]]) -> None:
    """Count the images that a method is called with under the mode that began last."""
    original = getattr(cls, name)

    def counted(self: Any, images: Any, *rest: Any) -> Any:
        list(counts.values())[-1][kind] += len(images)
        return original(self, images, *rest)

    setattr(cls, name, counted)


if __name__ == "__main__":
    main()
