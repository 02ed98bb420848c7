"""What do blocks and 8 bits cost in accuracy? Networks of one size, clean and attacked, beside their time and size.

    python benchmarks/int8_accuracy.py --data digits --out int8-accuracy [-o benchmarks/results/int8_accuracy.json]
    python benchmarks/int8_accuracy.py --data cifar10 --data-dir data/cifar10 --out int8-accuracy

A dense network, irregular pruning and blocks of four input channels at equal `keep`, in fp32; and the blocks in 8 bits,
trained with `training.quantize=int8` or calibrated after training. On digits all are trained by preset `quick`, three
seeds. On CIFAR-10, as JPEG files, the networks in examples/cifar10 are attacked, and those in 8 bits are made of them;
a dense one is taken from --runs, if it is there. The attacks have the radius of training, the standard AutoAttack among
them; where `evaluate` has attacked a network in --runs by AutoAttack on the same images, its outcomes are taken.
Networks of 8 bits are the exported bundles: the attacks have the gradients of the bundle's twin, whose logits are
checked against the artifact's on every attacked image; what takes no gradient asks the artifact itself. An image counts
as robust if it is right when clean, too.

All runs and results are kept in --out, so that an interrupted benchmark goes on when it is started again. At the end
the bundles of the first seed are timed in turns. Rows of other data in the result file stay as they are.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Sequence
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
from robust_edge.evaluation.outcome import ROBUST
from robust_edge.evaluation.record import stored_evaluation
from robust_edge.evaluation.subset import choose
from robust_edge.export import export_run
from robust_edge.int8.network import Int8Network
from robust_edge.run.directory import Run, open_run
from robust_edge.run.images import dataset_of
from robust_edge_exporters.formats.native.integers import int8_graph_of
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.files import write_atomic
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.load import load

STEPS = 50
EXAMPLES = Path(__file__).parents[1] / "examples/cifar10"


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set, and how networks are trained on it.

    Attributes:
        seeds: of the runs, unless --seeds has others.
        settings: of every run that is trained here.
        images: number of test images that are attacked; None for all.
        trained: folders in --runs of networks that were trained before, by the name of the run here.
        tuned: settings that make the run of 8 bits of the network with blocks, if that is among `trained`.
    """

    eps: float
    preset: str
    seeds: tuple[int, ...]
    settings: dict[str, Any]
    images: int | None = None
    trained: dict[str, str] = dataclasses.field(default_factory=dict)
    tuned: dict[str, Any] = dataclasses.field(default_factory=dict)


DATA = {
    "digits": Data(eps=0.1, preset="quick", seeds=(0, 1, 2), settings={"data.dataset": "digits", "arch": "small_cnn"}),
    "cifar10": Data(
        eps=8 / 255,
        preset="strong",
        seeds=(0,),
        settings={"data.dataset": "folder", "arch": "slim_resnet"},
        images=1000,
        trained={"dense": "dense", "irregular": "irregular-10", "block": "block-10"},
        tuned={
            "pruning.keep_mask": True,
            "admm.regrow": 0.0,
            "attack.eps_schedule": "constant",
            "training.epochs": 3,
            "training.lr": 0.01,
            "training.quantize_share": 1.0,
        },
    ),
}
CHUNK = 100  # images between two savings of a result


@dataclasses.dataclass(frozen=True)
class Network:
    """A row of the table: how the weights are pruned, and what the arithmetic is.

    Attributes:
        quantized_from: the run that this one goes on from, where that was trained before.
    """

    name: str
    run: str
    precision: str
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    quantized_from: str = ""


BLOCK = {"pruning.scheme": "block"}
NETWORKS = (
    Network("dense, fp32", "dense", "fp32", {"pruning.keep": 1.0}),
    Network("irregular, fp32", "irregular", "fp32"),
    Network("blocks, fp32", "block", "fp32", BLOCK),
    Network("blocks, int8, trained", "block-int8", "int8", {**BLOCK, "training.quantize": "int8"}, "block"),
    Network("blocks, int8, calibrated", "block", "int8", BLOCK),
)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What the command line asked for."""

    name: str
    data: Data
    seeds: tuple[int, ...]
    out: Path
    runs: Path
    data_dir: Path | None


def config(network: Network, seed: int, choice: Choice) -> CompressConfig:
    """The settings of a run."""
    flags = {
        "pruning.keep": 0.1,
        "attack.eps": choice.data.eps,
        "seed": seed,
        "threads": 1,
        "device": "cpu",
        **choice.data.settings,
        **network.settings,
    }
    if choice.data_dir is not None:
        flags["data.dir"] = str(choice.data_dir.absolute())
    if network.quantized_from in choice.data.trained:
        flags |= {"init": str(choice.runs / choice.data.trained[network.quantized_from]), **choice.data.tuned}
    return resolve(preset=choice.data.preset, flags=flags)


def run_of(network: Network, seed: int, choice: Choice) -> Run | None:
    """The run of a network: trained before or here; None if it should have been trained before and is not there."""
    if network.run not in choice.data.trained:
        return trained(config(network, seed, choice), choice.out / f"{choice.name}-{network.run}-{seed}")
    path = choice.runs / choice.data.trained[network.run]
    return open_run(path) if path.is_dir() else None


def stored(path: Path, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A result from its file, or computed and written there."""
    if not path.exists():
        write_atomic(path, json.dumps(compute()))
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return read


def bundle_of(run: Run, network: Network, choice: Choice) -> Path:
    """The bundle of a run for the sparse engine, exported if there is none."""
    path = choice.out / f"{choice.name}-{run.name}.{network.precision}"
    if not path.exists():
        target = target_named("x86-cpu-sparse" + "-int8" * (network.precision == "int8"))
        export_run(run, target, path, data_dir=None if choice.data_dir is None else str(choice.data_dir))
    return path


class Answered(nn.Module):
    """A twin whose artifact answers where no gradient is taken: the logits are the same, and come sooner."""

    def __init__(self, twin: Int8Network, artifact: BaseRuntime) -> None:
        super().__init__()
        self.twin, self.artifact = twin, artifact

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) pixels to (N, K) logits."""
        if images.requires_grad:
            logits: Tensor = self.twin(images)
            return logits
        return torch.from_numpy(self.artifact.infer_all(images.numpy()))


def autoattacked(model: nn.Module, split: Split, eps: float, positions: Sequence[int]) -> Tensor:
    """The images of a split, perturbed by AutoAttack."""
    batch = Batch(split.floats(slice(None)), split.labels, positions)
    return AutoAttack().perturb(model, batch, Threat(eps))


def attacked_before(run: Run, positions: Sequence[int], eps: float) -> tuple[str, ...] | None:
    """The outcomes of these images under AutoAttack in the run's own record; None if it has no such record."""
    record = stored_evaluation(run, "autoattack")
    result = None if record is None else record.result
    if result is None or result.threat != Threat(eps) or result.positions != tuple(positions):
        return None
    return result.outcomes


def counts(
    model: nn.Module,
    bundle: Path,
    split: Split,
    positions: Sequence[int],
    eps: float,
    outcomes: Sequence[str] | None,
) -> dict[str, int]:
    """Images that are right when clean and under each attack; the artifact is checked on all that are attacked here."""
    integers = isinstance(model, Int8Network)
    with load(bundle) as artifact:
        attacked = Answered(model, artifact) if isinstance(model, Int8Network) else model
        images = {
            "clean": split.floats(slice(None)),
            "pgd": attack_split(attacked, split, Pgd(steps=STEPS), Threat(eps)).images,
        }
        if outcomes is None:
            images["autoattack"] = autoattacked(attacked, split, eps, positions)
        for pixels in images.values():
            logits, expected = artifact.infer_all(pixels.numpy()), model(pixels).numpy()
            assert np.array_equal(logits, expected) if integers else np.allclose(logits, expected, rtol=1e-3, atol=1e-3)
        right = {name: model(pixels).argmax(1) == split.labels for name, pixels in images.items()}
    found = {name: int((found & right["clean"]).sum()) for name, found in right.items()} | {"images": len(split)}
    return found if outcomes is None else found | {"autoattack": outcomes.count(ROBUST)}


def accuracies(run: Run, bundle: Path, choice: Choice, precision: str) -> dict[str, Any]:
    """The counts of all images, in chunks whose results are kept."""
    data_dir = None if choice.data_dir is None else str(choice.data_dir)
    split, positions = choose(dataset_of(run, data_dir).test, choice.data.images)
    model = Int8Network(int8_graph_of(bundle)) if precision == "int8" else run.load_model()
    model = model.eval().requires_grad_(False)
    outcomes = attacked_before(run, positions, choice.data.eps) if precision == "fp32" else None
    total: Counter[str] = Counter()
    for first in range(0, len(split), CHUNK):
        chosen = slice(first, first + CHUNK)
        part, before = split.take(torch.arange(len(split))[chosen]), outcomes and outcomes[chosen]
        chunk = partial(counts, model, bundle, part, positions[chosen], choice.data.eps, before)
        total.update(stored(bundle.with_name(f"{bundle.name}.{first}.json"), chunk))
        print(f"{bundle.name}: {dict(total)}", flush=True)
    source = "here" if outcomes is None else "evaluate"
    return {**total, "autoattack_by": source, "weights_bytes": (bundle / "weights.bin").stat().st_size}


def timed(bundles: dict[str, Path], seconds: float) -> dict[str, float]:
    """Median milliseconds of one image, one thread, in turns."""
    runtimes = {name: load(path, threads=1) for name, path in bundles.items()}
    image = open_bundle(next(iter(bundles.values()))).golden().clean[:1]
    with one_core(1):
        samples = interleaved({name: runtime.infer for name, runtime in runtimes.items()}, image, seconds=seconds)
    return {name: round(statistics.median(values), 5) for name, values in samples.items()}


def rows_of(choice: Choice) -> list[dict[str, Any]]:
    """Train, export and attack every network of a data set."""
    rows, bundles = [], {}
    for seed in choice.seeds:
        for network in NETWORKS:
            run = run_of(network, seed, choice)
            if run is None:
                print(f"{choice.name}, {network.name}: left out, as it is not in {choice.runs}", flush=True)
                continue
            bundle = bundle_of(run, network, choice)
            found = accuracies(run, bundle, choice, network.precision)
            sparsity = run.checkpoint().sparsity
            head = {"data": choice.name, "network": network.name, "seed": seed, "eps": choice.data.eps}
            rows.append({**head, "nonzero": sparsity.nonzero, "weights": sparsity.weights, **found})
            if seed == choice.seeds[0]:
                bundles[network.name] = bundle
    times = timed(bundles, seconds=4.0)
    return [{**row, "ms": times[row["network"]] if row["seed"] == choice.seeds[0] else None} for row in rows]


def command() -> str:
    """What was called, without the paths of one machine."""
    words = ["DIR" if Path(word).is_dir() or "/" in word else word for word in sys.argv[1:]]
    return shlex.join(["python", "benchmarks/int8_accuracy.py", *words])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=DATA, default="digits")
    parser.add_argument("--data-dir", type=Path, help="holds train/CLASS/*.jpg and test/CLASS/*.jpg of CIFAR-10")
    parser.add_argument("--runs", type=Path, default=EXAMPLES, help="folder of the networks trained on CIFAR-10")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("int8-accuracy"), help="folder of the runs")
    parser.add_argument("-o", "--result", type=Path, default=RESULTS / "int8_accuracy.json")
    given = parser.parse_args()
    if (given.data == "cifar10") != (given.data_dir is not None):
        parser.error("--data cifar10 takes --data-dir, and digits do without")
    if given.data == "cifar10" and not (given.runs / "block-10").is_dir():
        parser.error(f"--runs: {given.runs} has no network 'block-10'")
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    data = DATA[given.data]
    seeds = tuple(given.seeds or data.seeds)
    rows = rows_of(Choice(given.data, data, seeds, given.out, given.runs, given.data_dir))
    before = json.loads(given.result.read_text("utf-8")) if given.result.exists() else {"environments": {}, "rows": []}
    rows += [row for row in before["rows"] if row["data"] != given.data]
    environments = {**before["environments"], given.data: provenance(command(), "torch")}
    rows.sort(key=lambda row: list(DATA).index(row["data"]))
    write_result(given.result, {"environments": environments, "steps": STEPS, "rows": rows})


if __name__ == "__main__":
    main()
