"""All of CIFAR-10 as JPEG files, on two CPU cores in hours: the slim ResNet dense, at 10% irregular, and in blocks.

    python benchmarks/cifar_trial_slim.py --data-dir data/cifar10 --minutes 30 [-o benchmarks/results/cifar_trial_slim]
    python benchmarks/cifar_trial_slim.py --data-dir data/cifar10 --minutes 30 [--ablations] [--precision bf16]

Settings: preset `strong` from random weights, then the three networks once more from the dense one, in a third of the
epochs, with two steps of PGD at the full radius, and the dense one in twice as many. All are attacked by the standard
AutoAttack on 1,000 test images. With --ablations: the network with irregular pruning at a fifth of the budget, three
seeds, without one part of the recipe each, with other attacks in training or other batches, and by preset `strong` of
release 0.1, with weights perturbed in all but a tenth of its epochs and in none; PGD-50 on 1,000 test images. A variant
whose steps cost more passes gets fewer epochs: all take about the same number of passes through the network, 2s + 3 per
image with attacked images only, 2s + 6 with clean ones, 3 or 6 more with AWP, and those of PGD-10 on the images that
are held out.

On a CPU with matrix products in bfloat16 (flags avx512_bf16 or amx_bf16 in `lscpu`), --precision bf16 takes 0.6 of the
time; on others it is slower. Attacks after training are computed in float32 either way. Core hours are CPU time.

After --minutes the script saves the epoch it is in and exits with 75; the same command goes on there, until it exits
with 0. The table and the curve of accuracy against hours are written after every slice, from what is there. What the
result file has of a network that is not in --out stays and is not trained again, so that another machine can go on with
the rest; delete the file to begin anew. With --examples the attacked networks that take under 2 MB are copied there.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from argument_types import fraction
from result_file import RESULTS, provenance
from trial_grid import (
    OUTPUT,
    SLICE_OVER,
    done_within,
    markdown,
    minutes,
    share,
    trained,
    training_seconds,
    write_results,
)

from robust_edge.config.compress import CompressConfig
from robust_edge.config.settings import from_plain, resolve, to_plain, to_yaml
from robust_edge.evaluation.accuracy import Accuracy
from robust_edge.evaluation.evaluate import evaluate_run
from robust_edge.evaluation.record import stored_evaluation
from robust_edge.evaluation.settings import EvaluateSettings
from robust_edge.run.directory import CHECKPOINT, ENVIRONMENT, METRICS, WEIGHTS, Run, open_run
from robust_edge.run.directory import CONFIG as RUN_CONFIG
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import write_atomic

OF_RELEASE = Path(__file__).with_name("strong-0.1.yaml")
"""Preset `strong` of release 0.1, on top of the present one."""
LARGEST_EXAMPLE = 2_000_000  # bytes
EPS, IMAGES, SEEDS = 8 / 255, 1000, 3
TRAINING_IMAGES = 50_000
BUDGET = 156.0
"""Passes through the network per training image of one network: 30 epochs."""
CONTINUED = 72.0  # of one that starts from the dense network: 10 epochs
ABLATION = 28.0  # of an ablation: 5 epochs
NETWORKS: dict[str, dict[str, Any]] = {
    "dense": {"pruning.keep": 1.0},
    "irregular-10": {"pruning.keep": 0.1},
    "block-10": {"pruning.keep": 0.1, "pruning.scheme": "block"},
}
START = "dense"
"""The network that those with `-continued` in their names start from."""
FROM_START: dict[str, Any] = {
    "training.lr": 0.1,
    "attack.method": "pgd",
    "attack.steps": 2,
    "attack.eps_schedule": "constant",
    "admm.start": 0.0,
    "admm.masked_fraction": 0.7,
}
"""What they have in place of the settings of preset `strong`."""
ABLATIONS: dict[str, dict[str, Any]] = {
    "all-parts": {},
    "release": {},
    "release-without-awp": {"awp.gamma": 0.0},  # as its warm-up of ten epochs has it in so short a run
    "two-steps": {"attack.method": "pgd", "attack.steps": 2},
    "nuclear": {"training.loss": "nuclear", "training.beta": 4.0, "attack.method": "pgd", "attack.step_size": EPS},
    "batch-128": {"training.batch_size": 128},
    "clean-term": {"training.adversarial_weight": 0.9},
    "clean-term-sampled": {"training.adversarial_weight": 0.9, "training.clean_interval": 4},
    "cosine": {"training.lr_schedule": "cosine"},
    "early-end": {"training.lr_end": 0.85},
    "half-the-rate": {"training.lr": 0.1},
    "fast-radius": {"attack.eps_rise": 0.3},
    "early-mask": {"admm.masked_fraction": 0.75},
    "no-nesterov": {"training.nesterov": False},
    "no-smoothing": {"training.label_smoothing": 0.0},
    "no-decay": {"training.weight_decay": 0.0},
    "no-crops": {"data.augment": ["flip"]},
    "no-average": {"averaging.decay": 0.0, "averaging.reestimate": 0},
    "fixed-mask": {"admm.regrow": 0.0},
    "constant-radius": {"attack.eps_schedule": "constant"},
    "awp": {"awp.gamma": 0.005, "awp.windows": [0.1, 0.45, 0.67, 1.0]},
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="holds train/CLASS/*.jpg and test/CLASS/*.jpg")
    parser.add_argument("--out", type=Path, default=Path("runs/slim"), help="folder of the runs")
    parser.add_argument("-o", "--result", type=Path, help="result, without suffix; by default in benchmarks/results")
    parser.add_argument("--minutes", type=minutes, help="end this slice after so long; 0: only the table")
    parser.add_argument("--examples", type=Path, help="folder that gets what `export` needs of each small network")
    parser.add_argument("--ablations", action="store_true", help="train variants of the recipe, not the networks")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="train these and what they start from; attack these")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of training")
    parser.add_argument("--share", type=fraction, default=1.0, help="of images and passes: below 1 to try the script")
    choice = parser.parse_args(arguments)
    torch.set_num_threads(choice.threads)
    out = choice.result or RESULTS / (Path(__file__).stem + "_ablations" * choice.ablations)
    settings = {"eps": EPS, "images": images(choice), "share": choice.share}
    configs = grid(choice)
    done_before = finished_rows(out.with_suffix(".json"), settings, configs)
    if unknown := {*(choice.only or ())} - {*configs}:
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}; there are {', '.join(configs)}")

    def kept(name: str) -> bool:
        return name in done_before and not (choice.out / name).is_dir()

    def train(name: str) -> Run:
        record_origin(choice.out / name, choice)
        with core_hours(choice.out / name, "training"):
            return trained(configs[name], choice.out / name)

    def make(name: str) -> None:
        if configs[name].init is not None:
            train(START)
        run = train(name)
        with core_hours(choice.out / name, "attack"):
            evaluate(run.path, choice)
        if choice.examples is not None:
            publish(run, choice)

    def work() -> None:
        for name in choice.only or configs:
            if not kept(name):
                make(name)

    done = done_within(choice.minutes, work)
    rows = [
        done_before[name] if name in done_before and not attacked(choice.out / name, choice) else row(name, choice)
        for name in configs
    ]
    write_results(out, command(choice), {**settings, "runs": rows}, f"{table(rows)}\n{curves(rows)}")
    return 0 if done else SLICE_OVER


def finished_rows(
    path: Path, settings: dict[str, Any], configs: dict[str, CompressConfig]
) -> dict[str, dict[str, Any]]:
    """The rows of attacked networks in an earlier result file of the same settings, by name."""
    found = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    if {key: found.get(key) for key in settings} != settings:
        return {}
    rows = {item["name"]: item for item in found["runs"] if "robust" in item}
    return {name: row for name, row in rows.items() if name in configs and is_of(row, configs[name])}


def is_of(row: dict[str, Any], config: CompressConfig) -> bool:
    """Whether a row has the recipe of a config; settings that are newer than the row have their defaults in it."""
    try:
        return recipe(from_plain(row["config"])) == recipe(config)
    except (KeyError, InputError):  # no recipe, or one with a setting that is no more
        return False


def recipe(config: CompressConfig) -> dict[str, Any]:
    """What a row is of: the config without what the machine decides, its precision in training among it."""
    plain: dict[str, Any] = json.loads(json.dumps(to_plain(config)))
    for key in ("threads", "device", "compute"):
        del plain[key]
    del plain["data"]["dir"]
    plain["init"] = plain["init"] and Path(plain["init"]).name
    return plain


def origin(path: Path) -> Path:
    """The file that says which commit and machine began a run."""
    return path.with_suffix(".origin.json")


def command(choice: argparse.Namespace) -> str:
    """The command that trains the networks of this table on another machine."""
    flags = [*(["--ablations"] if choice.ablations else []), "--threads", str(choice.threads)]
    flags += ["--precision", choice.precision, *(["--share", str(choice.share)] if choice.share < 1 else [])]
    return shlex.join(["python", "benchmarks/cifar_trial_slim.py", "--data-dir", "data/cifar10", *flags])


def record_origin(path: Path, choice: argparse.Namespace) -> None:
    """Write that file, unless an earlier slice has."""
    if not origin(path).is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(origin(path), json.dumps(provenance(command(choice), "torch")))


@contextlib.contextmanager
def core_hours(path: Path, part: str) -> Iterator[None]:
    """Add the CPU time of this part to what earlier slices took, in PATH.cores.json beside the run."""
    before = time.process_time()
    try:
        yield
    finally:
        hours = hours_of(path)
        hours[part] = hours.get(part, 0.0) + (time.process_time() - before) / 3600
        write_atomic(cores(path), json.dumps(hours))


def cores(path: Path) -> Path:
    """The file with the core hours of a run."""
    return path.with_suffix(".cores.json")


def hours_of(path: Path) -> dict[str, float]:
    """Core hours of the parts of a run, in all slices."""
    return json.loads(cores(path).read_text("utf-8")) if cores(path).is_file() else {}


def grid(choice: argparse.Namespace) -> dict[str, CompressConfig]:
    """The configs by the names of their runs; the first seed of every ablation comes before the second."""
    if not choice.ablations:
        init = {"init": str((choice.out / START).absolute())}
        return {
            **{name: config_of(flags, None, choice, BUDGET) for name, flags in NETWORKS.items()},
            **{
                f"{name}-continued": config_of({**flags, **FROM_START, **init}, None, choice, CONTINUED)
                for name, flags in NETWORKS.items()
            },
            f"{START}-longer": config_of({**NETWORKS[START], **FROM_START, **init}, None, choice, 2 * CONTINUED),
        }
    sparse = NETWORKS["irregular-10"]
    return {
        f"{name}-seed{seed}": config_of(
            {**sparse, **flags, "seed": seed}, OF_RELEASE if name.startswith("release") else None, choice, ABLATION
        )
        for seed in range(SEEDS)
        for name, flags in ABLATIONS.items()
    }


def config_of(flags: dict[str, Any], file: Path | None, choice: argparse.Namespace, budget: float) -> CompressConfig:
    """The config with as many epochs as the budget of passes allows."""
    shared = {
        "arch": "slim_resnet",
        "data.dataset": "folder",
        "data.dir": str(choice.data_dir.absolute()),
        "threads": choice.threads,
        "device": "cpu",
        "compute.precision": choice.precision,
    }
    if choice.share < 1:
        shared |= {"data.limit_train": round(TRAINING_IMAGES * choice.share), "data.limit_test": images(choice)}
        shared |= {"selection.held_out": max(20, round(1000 * choice.share))}
    config = resolve(preset="strong", file=file, flags={**shared, **flags})
    epochs = max(2, round(budget * max(choice.share, 0.2) / passes(config)))
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, epochs=epochs))
    if config.awp.gamma and not config.awp.windows:  # its warm-up is of 10 of 100 epochs
        config = dataclasses.replace(config, awp=dataclasses.replace(config.awp, warmup=max(1, round(0.1 * epochs))))
    return config


def passes(config: CompressConfig) -> float:
    """Passes through the network per training image, on average over the run; a forward pass counts as one."""
    training = config.training
    clean = 1.0 if training.loss != "adversarial" else (training.adversarial_weight < 1) / training.clean_interval
    of_loss = 3 * (1 + clean)
    of_attack = 2 * config.attack.steps + (training.loss != "adversarial")  # the clean logits that it starts from
    held_out = config.selection.held_out
    others = held_out / ((config.data.limit_train or TRAINING_IMAGES) - held_out) * (2 * config.selection.steps + 1)
    others /= config.selection.every
    if not config.awp.gamma:
        return of_attack + of_loss + others
    bounds = config.awp.windows or (0.1, 1.0)
    perturbed = sum(high - low for low, high in zip(bounds[::2], bounds[1::2], strict=True))
    return of_attack + of_loss * (1 + perturbed) + others


def images(choice: argparse.Namespace) -> int:
    """The number of test images that are attacked."""
    return IMAGES if choice.share == 1 else max(20, round(IMAGES * choice.share))


def attack_of(choice: argparse.Namespace) -> str:
    """The standard AutoAttack for the networks of the trial, PGD for ablations."""
    return "pgd" if choice.ablations else "autoattack"


def evaluate(path: Path, choice: argparse.Namespace) -> None:
    """Attack a finished run, or resume an interrupted attack."""
    if not attacked(path, choice):
        settings = EvaluateSettings(attack=attack_of(choice), eps=EPS, limit=images(choice), device="cpu")
        evaluate_run(open_run(path), settings, progress=OUTPUT.progress(f"attacking {path.name}"))


def attacked(path: Path, choice: argparse.Namespace) -> bool:
    """Whether there is a finished run in this folder whose attack is finished, too."""
    return (path / CHECKPOINT).is_file() and stored_evaluation(open_run(path), attack_of(choice)) is not None


def publish(run: Run, choice: argparse.Namespace) -> None:
    """Copy what `export` needs of an attacked network and the outcomes of the attack; no large network.

    The config names the folders that the docs name, in place of those of this machine.
    """
    folder = choice.examples / run.name
    if (run.path / WEIGHTS).stat().st_size > LARGEST_EXAMPLE:
        return
    outcomes = f"evaluations/{attack_of(choice)}.json"
    (folder / outcomes).parent.mkdir(parents=True, exist_ok=True)
    for file in (WEIGHTS, CHECKPOINT, METRICS, ENVIRONMENT, outcomes):
        write_atomic(folder / file, (run.path / file).read_bytes())
    config = dataclasses.replace(run.config, data=dataclasses.replace(run.config.data, dir="data/cifar10"))
    if config.init is not None:
        config = dataclasses.replace(config, init=f"runs/slim/{START}")
    write_atomic(folder / RUN_CONFIG, to_yaml(config))
    for beside in (origin, cores):
        write_atomic(beside(folder), beside(run.path).read_bytes())


def row(name: str, choice: argparse.Namespace) -> dict[str, Any]:
    """What there is of one network."""
    path = choice.out / name
    found: dict[str, Any] = {"name": name, "epochs": 0}
    if not (path / RUN_CONFIG).is_file():
        return found
    run = open_run(path)
    metrics = run.metrics()
    hours = 0.0
    curve = []
    for item in metrics:
        hours += item.seconds / 3600
        if item.held_out_robust is not None:
            curve.append([item.epoch, round(hours, 3), item.held_out_clean, item.held_out_robust])
    found |= {
        "config": recipe(run.config),
        "epochs": len(metrics),
        "of": run.config.training.epochs,
        "seconds": training_seconds(run),
        "core_hours": {part: round(hours, 3) for part, hours in hours_of(path).items()},
        "curve": curve,
    }
    if not run.finished:
        return found
    found |= {"keep": run.checkpoint().sparsity.keep, "bytes": (path / WEIGHTS).stat().st_size}
    found |= {"precision": run.config.compute.precision, **json.loads(origin(path).read_text("utf-8"))}
    record = stored_evaluation(run, attack_of(choice))
    if record is not None and record.result is not None:
        found["clean"] = dataclasses.asdict(record.result.clean)
        found["robust"] = dataclasses.asdict(record.result.robust)
        found["attack_seconds"] = round(record.seconds, 1)
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """Accuracies in percent with 95% intervals."""
    lines = []
    for item in rows:
        accuracies = [share(Accuracy(**item[key])) if key in item else "–" for key in ("clean", "robust")]
        keep = f"{100 * item['keep']:.1f}%" if "keep" in item else "–"
        size = f"{item['bytes'] / 1e6:.2f} MB" if "bytes" in item else "–"
        epochs = f"{item['epochs']} of {item['of']}" if item["epochs"] else "not run"
        cores = item.get("core_hours", {})
        hours = [f"{cores[part]:.2f}" if part in cores else "–" for part in ("training", "attack")]
        lines.append([item["name"], keep, *accuracies, epochs, *hours, size])
    header = ["network", "kept", "clean", "under attack", "epochs", "core hours", "core hours, attack", "checkpoint"]
    return markdown(header, lines)


def curves(rows: list[dict[str, Any]]) -> str:
    """Accuracies on held-out images against hours of training by the wall clock, clean and under PGD-10."""
    lines = []
    for item in rows:
        points = "; ".join(
            f"{hours:.2f}: {clean:.1%}/{robust:.1%}" for _, hours, clean, robust in item.get("curve", [])
        )
        lines.append([item["name"], points or "–"])
    return markdown(["network", "hours of wall clock: clean/PGD-10, held out"], lines)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as cause:
        sys.exit(f"cifar_trial_slim.py: {cause}")
