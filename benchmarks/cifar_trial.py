"""CIFAR-10 as a folder of JPEG files, a part of it, on two CPU cores in half an hour: what does sparsity cost?

    python benchmarks/cifar_trial.py --data-dir data/cifar10 --out cifar-trial [-o benchmarks/results/cifar_trial]

Small CNN at 32×32 and MobileNetV2 at 16×16 pixels; benign and robust (ε = 8/255); dense, 50% and 10% kept; MobileNetV2
at 10% with one threshold for all layers and with the same fraction in each, both with depthwise layers left dense (the
default), and without that and with a floor of a hundredth. Settings: benchmarks/cifar_trial.yaml. Every
network is evaluated by PGD-20 on test images. Writes a JSON and a Markdown file. Killed, it goes on where it was when
started again. Small networks after few epochs: the figures say something about the gap between sparse and dense,
nothing about CIFAR-10.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch
from result_file import RESULTS
from trial_grid import attacked, markdown, share, trained, training_seconds, write_results

from robust_edge.config.settings import resolve
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge.run.directory import Run

CONFIG = Path(__file__).with_suffix(".yaml")
EPS, STEPS = 8 / 255, 20
IMAGES = {"small_cnn": 3000, "mobilenet_v2": 2000}
EPOCHS = {"small_cnn": 12, "mobilenet_v2": 8}
SIDE = {"small_cnn": 32, "mobilenet_v2": 16}  # pixels; MobileNetV2's depthwise layers are slow on a CPU
TEST_IMAGES, HELD_OUT = 500, 250
STARVED = 0.02  # of its own weights


@dataclasses.dataclass(frozen=True)
class Network:
    """One line of the table."""

    arch: str
    robust: bool
    keep: float
    scope: str = "global"
    bare: bool = False  # depthwise layers are pruned, too, and a layer may lose all but a hundredth of its weights

    @property
    def name(self) -> str:
        """Of the run's folder."""
        kind = "robust" if self.robust else "benign"
        return f"{self.arch}-{kind}-{100 * self.keep:g}" + "-per-layer" * (self.scope == "layer") + "-bare" * self.bare

    @property
    def threshold(self) -> str:
        """What decides how many weights a layer keeps, in words."""
        rule = "same fraction everywhere" if self.scope == "layer" else "one threshold"
        return rule + (", depthwise layers too" if self.bare else "")


GRID = (
    *(Network("small_cnn", robust, keep) for robust in (False, True) for keep in (1.0, 0.5, 0.1)),
    *(Network("mobilenet_v2", robust, keep) for robust in (False, True) for keep in (1.0, 0.5, 0.1)),
    Network("mobilenet_v2", True, 0.1, "layer"),
    Network("mobilenet_v2", True, 0.1, bare=True),
    Network("mobilenet_v2", True, 0.1, "layer", bare=True),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="holds train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("--out", type=Path, default=Path("cifar-trial"), help="folder of the runs")
    parser.add_argument("-o", "--result", type=Path, default=RESULTS / "cifar_trial", help="result, without suffix")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--share", type=float, default=1.0, help="of images and epochs, to try this script")
    parser.add_argument("--only", nargs="+", help="train and attack these networks only, by name")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    runs = {}
    for network in GRID:
        if not arguments.only or network.name in arguments.only:
            runs[network] = one(network, arguments)
    rows = [row(network, run) for network, run in runs.items()]
    results = {"config": CONFIG.read_text("utf-8"), "eps": EPS, "steps": STEPS, "share": arguments.share, "runs": rows}
    tables = accuracy_table(rows) + "\n" + density_table(rows)
    write_results(arguments.result, "python benchmarks/cifar_trial.py", results, tables)


def one(network: Network, arguments: argparse.Namespace) -> Run:
    size = {
        "data.limit_train": round(IMAGES[network.arch] * arguments.share),
        "data.resize": SIDE[network.arch],
        "data.limit_test": max(50, round(TEST_IMAGES * arguments.share)),
        "training.epochs": max(2, round(EPOCHS[network.arch] * arguments.share)),
        "selection.held_out": max(20, round(HELD_OUT * arguments.share)),
    }
    flags = {
        "arch": network.arch,
        "data.dir": str(arguments.data_dir.absolute()),
        "attack.eps": EPS if network.robust else 0.0,
        "pruning.keep": network.keep,
        "pruning.scope": network.scope,
        "pruning.prune_depthwise": network.bare,
        "pruning.floor": 0.01 if network.bare else None,
        "threads": arguments.threads,
        "device": "cpu",
    }
    run = trained(resolve(file=CONFIG, flags={**flags, **size}), arguments.out / network.name)
    attacked(run, eps=EPS, steps=STEPS)
    return run


def row(network: Network, run: Run) -> dict[str, Any]:
    checkpoint, result = run.checkpoint(), attacked(run, eps=EPS, steps=STEPS)
    return {
        "name": network.name,
        **dataclasses.asdict(network),
        "nonzero": checkpoint.sparsity.nonzero,
        "weights": checkpoint.sparsity.weights,
        "epoch": checkpoint.epoch,
        "clean": dataclasses.asdict(result.clean),
        "pgd": dataclasses.asdict(result.robust),
        "training_seconds": training_seconds(run),
        "images_per_second": round(sum(r.images for r in run.metrics()) / max(training_seconds(run), 0.1), 1),
        "layers": layers(run),
    }


def layers(run: Run) -> list[dict[str, Any]]:
    """Of each layer: its weights, the fraction kept, its filters, and how many of them have lost every weight."""
    return [
        {
            "name": name,
            "weights": weight.numel(),
            "keep": round(int(weight.count_nonzero()) / weight.numel(), 4),
            "filters": len(weight),
            "empty_filters": int((weight.flatten(1).count_nonzero(1) == 0).sum()),
        }
        for name, weight in prunable_parameters(run.load_model()).items()
    ]


def accuracy_table(rows: list[dict[str, Any]]) -> str:
    header = ["network", "weights kept", "clean", f"PGD-{STEPS} at 8/255", "behind its dense network", "training"]
    lines = []
    for item in rows:
        dense = [
            other
            for other in rows
            if (other["arch"], other["robust"], other["keep"]) == (item["arch"], item["robust"], 1.0)
        ]
        figure = "pgd" if item["robust"] else "clean"
        behind = "-"
        if dense and item["keep"] < 1:
            behind = f"{100 * (dense[0][figure]['value'] - item[figure]['value']):+.1f} points {figure}"
        lines.append(
            [
                item["name"],
                f"{item['nonzero']} / {item['weights']}",
                *(share_of(item[name]) for name in ("clean", "pgd")),
                behind,
                f"{item['training_seconds']:.0f} s, {item['images_per_second']:.0f} images/s",
            ]
        )
    return markdown(header, lines)


def share_of(stored: dict[str, Any]) -> str:
    from robust_edge.evaluation.accuracy import Accuracy

    return share(Accuracy(**stored))


def density_table(rows: list[dict[str, Any]]) -> str:
    """The robust MobileNetV2s at 10%, layer by layer: one threshold over all against the same fraction everywhere."""
    chosen = [row for row in rows if row["arch"] == "mobilenet_v2" and row["keep"] == 0.1 and row["robust"]]
    if not chosen:
        return ""
    names = [
        Network(**{field.name: row[field.name] for field in dataclasses.fields(Network)}).threshold for row in chosen
    ]
    header = ["layer", "weights", *(f"kept, {name}" for name in names)]
    lines = [
        [layer["name"], str(layer["weights"]), *(kept_of(row["layers"][turn]) for row in chosen)]
        for turn, layer in enumerate(chosen[0]["layers"])
    ]
    return markdown(header, lines) + "\n" + "\n".join(map(summary, names, chosen))


def kept_of(layer: dict[str, Any]) -> str:
    """A fraction; and how many filters have no weight left, if any."""
    empty = f", {layer['empty_filters']} of {layer['filters']} filters empty" if layer["empty_filters"] else ""
    return f"{100 * layer['keep']:.1f}%{empty}"


def summary(name: str, row: dict[str, Any]) -> str:
    least = min(row["layers"], key=lambda layer: layer["keep"])
    starved = sum(layer["keep"] < STARVED for layer in row["layers"])
    empty, filters = (sum(layer[kind] for layer in row["layers"]) for kind in ("empty_filters", "filters"))
    return (
        f"{name[0].upper()}{name[1:]}: the sparsest layer is {least['name']} with {100 * least['keep']:.1f}%; "
        f"{starved} of {len(row['layers'])} layers keep less than {100 * STARVED:g}%; "
        f"{empty} of {filters} filters are empty.\n"
    )


if __name__ == "__main__":
    main()
