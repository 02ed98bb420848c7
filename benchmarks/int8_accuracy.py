"""What do blocks and 8 bits cost in accuracy? Networks of one size, clean and attacked, beside their time and size.

    python benchmarks/int8_accuracy.py --out int8-accuracy [-o benchmarks/results/int8_accuracy.json]

Preset `quick` with attacks of its training's radius, several seeds: a dense network, irregular pruning and blocks of
four input channels at equal `keep`, in fp32; and the blocks in 8 bits, trained with `training.quantize=int8` or
calibrated after training. Networks of 8 bits are the exported bundles: the attacks have the gradients of the
bundle's twin, whose logits are checked against the artifact's on every attacked image. An image counts as robust if it
is right when clean, too.

All runs and results are kept in --out, so that an interrupted benchmark goes on when it is started again. At the end
the bundles of the first seed are timed in turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result_file import RESULTS, provenance, write_result
from sparse_engine import interleaved, one_core
from torch import Tensor, nn
from trial_grid import trained

from robust_edge.attacks.attack import Batch
from robust_edge.attacks.autoattack import AutoAttack
from robust_edge.attacks.pgd import Pgd
from robust_edge.config.compress import CompressConfig
from robust_edge.config.settings import resolve
from robust_edge.data import Split
from robust_edge.evaluation.accuracy import attack_split
from robust_edge.export import export_run
from robust_edge.int8.network import Int8Network
from robust_edge.run.directory import Run
from robust_edge.run.images import dataset_of
from robust_edge_exporters.formats.native.integers import int8_graph_of
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.load import load

STEPS = 50


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set, and how networks are trained on it."""

    eps: float
    keep: float
    preset: str = "quick"
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)


DATA = {"digits": Data(eps=0.1, keep=0.1)}


@dataclasses.dataclass(frozen=True)
class Network:
    """A row of the table: how the weights are pruned, and what the arithmetic is."""

    name: str
    run: str
    precision: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)


BLOCK = {"pruning.scheme": "block"}
NETWORKS = (
    Network("dense, fp32", "dense", "fp32", {"pruning.keep": 1.0}),
    Network("irregular, fp32", "irregular", "fp32"),
    Network("blocks, fp32", "block", "fp32", BLOCK),
    Network("blocks, int8, trained", "block-int8", "int8", {**BLOCK, "training.quantize": "int8"}),
    Network("blocks, int8, calibrated", "block", "int8", BLOCK),
)


def config(data: str, network: Network, seed: int) -> CompressConfig:
    """The settings of a run."""
    chosen = DATA[data]
    flags = {
        "data.dataset": data,
        "arch": "small_cnn",
        "pruning.keep": chosen.keep,
        "attack.eps": chosen.eps,
        "seed": seed,
        "threads": 1,
    }
    return resolve(preset=chosen.preset, flags={**flags, "device": "cpu", **chosen.settings, **network.settings})


def stored(path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A result from its file, or computed and written there."""
    if not path.exists():
        found = compute()
        path.write_text(json.dumps(found), encoding="utf-8")
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read


def bundle_of(run: Run, network: Network) -> Path:
    """The bundle of a run for the sparse engine, exported if there is none."""
    path = run.path.with_name(f"{run.name}.{network.precision}")
    if not path.exists():
        export_run(run, target_named("x86-cpu-sparse" + "-int8" * (network.precision == "int8")), path)
    return path


def autoattacked(model: nn.Module, split: Split, eps: float) -> Tensor:
    """The images of a split, perturbed by AutoAttack."""
    batch = Batch(split.floats(slice(None)), split.labels, range(len(split)))
    return AutoAttack().perturb(model, batch, Threat(eps))


def accuracies(run: Run, bundle: Path, network: Network, eps: float) -> dict[str, Any]:
    """Images that are right when clean and under each attack."""
    split = dataset_of(run, None).test
    int8 = network.precision == "int8"
    model = (Int8Network(int8_graph_of(bundle)) if int8 else run.load_model()).eval().requires_grad_(False)
    images = {
        "clean": split.floats(slice(None)),
        "pgd": attack_split(model, split, Pgd(steps=STEPS), Threat(eps)).images,
        "autoattack": autoattacked(model, split, eps),
    }
    right = {name: model(attacked).argmax(1) == split.labels for name, attacked in images.items()}
    with load(bundle) as artifact:
        for attacked in images.values():
            logits, expected = artifact.infer_all(attacked.numpy()), model(attacked).numpy()
            assert np.array_equal(logits, expected) if int8 else np.allclose(logits, expected, rtol=1e-3, atol=1e-3)
    counts = {name: int((found & right["clean"]).sum()) for name, found in right.items()}
    return {**counts, "images": len(split), "weights_bytes": (bundle / "weights.bin").stat().st_size}


def timed(bundles: dict[str, Path], seconds: float) -> dict[str, float]:
    """Median milliseconds of one image, one thread, in turns."""
    runtimes = {name: load(path, threads=1) for name, path in bundles.items()}
    image = open_bundle(next(iter(bundles.values()))).golden().clean[:1]
    with one_core(1):
        samples = interleaved({name: runtime.infer for name, runtime in runtimes.items()}, image, seconds=seconds)
    return {name: round(statistics.median(values), 5) for name, values in samples.items()}


def rows_of(data: str, seeds: list[int], out: Path) -> list[dict[str, Any]]:
    """Train, export and attack every network of a data set."""
    rows, bundles = [], {}
    for seed in seeds:
        for network in NETWORKS:
            run = trained(config(data, network, seed), out / f"{data}-{network.run}-{seed}")
            bundle = bundle_of(run, network)
            found = stored(
                bundle.with_name(f"{bundle.name}.json"), partial(accuracies, run, bundle, network, DATA[data].eps)
            )
            print(f"{data}, {network.name}, seed {seed}: {found}", flush=True)
            sparsity = run.checkpoint().sparsity
            head = {"data": data, "network": network.name, "seed": seed, "eps": DATA[data].eps}
            rows.append({**head, "nonzero": sparsity.nonzero, "weights": sparsity.weights, **found})
            if seed == seeds[0]:
                bundles[network.name] = bundle
    times = timed(bundles, seconds=4.0)
    return [{**row, "ms": times[row["network"]] if row["seed"] == seeds[0] else None} for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("int8-accuracy"), help="folder of the runs")
    parser.add_argument("-o", "--result", type=Path, default=RESULTS / "int8_accuracy.json")
    choice = parser.parse_args()
    torch.set_num_threads(1)
    choice.out.mkdir(parents=True, exist_ok=True)
    rows = [row for data in choice.data for row in rows_of(data, choice.seeds, choice.out)]
    words = ["DIR" if word == str(choice.out) else word for word in sys.argv[1:]]  # no path of one machine
    command = shlex.join(["python", "benchmarks/int8_accuracy.py", *words])
    write_result(choice.result, {"environment": provenance(command, "torch"), "steps": STEPS, "rows": rows})


if __name__ == "__main__":
    main()
