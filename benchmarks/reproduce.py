"""The thesis' grid on CIFAR-10 and its Table 4.2: ResNet34 and MobileNetV2, 100, 50 and 10% kept, three adversaries.
Before it, four networks of preset `strong` at ε = 8/255: what the thesis' method reaches with current training recipes.

    python benchmarks/reproduce.py --data-dir data --device cuda --minutes 9.5 [-o benchmarks/results/reproduce]
    python benchmarks/reproduce.py --plan minutes ...  # ResNet18 and ResNet34 at 10%, one slice to train, one to attack

Source: Marshall 2020, section 4 and Table 4.2. One file of benchmarks/reproduce/ for each network, on top of preset
`strong`, where its name says so, or `thesis`; each can be trained alone:

    robust-edge compress --preset strong --config benchmarks/reproduce/resnet34-strong-10.yaml ...

Plan `minutes` trains two networks by a recipe for minutes of a data-centre GPU, and then attacks 1,000 test images with
the standard AutoAttack: an estimate of two slices of ten minutes on an H200, not tried on a GPU yet. Its result is
reproduce_minutes.

Made for short slices of a GPU's time: after --minutes the script saves the epoch it is in, however far that is, and
exits with 75; the same command goes on there, until it exits with 0. Killed without notice, it loses an epoch at most.
The table is written after every slice, from what is there.

The thesis' ε of 0.1 and 0.03 are taken as units of the normalised image, a quarter of a pixel unit on CIFAR-10: no
network keeps 77 or 91% benign accuracy against 0.1 or 0.03 in pixel units, the thesis' do. It attacks with 8/255.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from result_file import RESULTS
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

from robust_edge.attacks.autoattack import ThesisAutoAttack
from robust_edge.config.compress import CompressConfig
from robust_edge.config.settings import resolve
from robust_edge.evaluation.accuracy import Accuracy
from robust_edge.evaluation.evaluate import evaluate_run
from robust_edge.evaluation.record import Evaluation, stored_evaluation
from robust_edge.evaluation.settings import EvaluateSettings
from robust_edge.run.directory import CONFIG, ENVIRONMENT, Run, open_run
from robust_edge_runtimes.core.errors import InputError

CONFIGS = Path(__file__).with_suffix("")
STRONG = ("resnet34-strong-10", "mobilenet_v2-strong-10", "resnet34-strong-50", "resnet34-strong-5")  # as they run
FAST = ("resnet18-fast-10", "resnet34-fast-10")  # of plan `minutes`
FAST_IMAGES = 1000
GRID, MINUTES = "grid", "minutes"
ADVERSARIES = ("eps0.1", "eps0.03", "benign")
AUTOATTACK, THESIS_AUTOATTACK = "autoattack", "thesis-autoattack"
EPS = 8 / 255
THESIS = {
    "resnet34-eps0.1-100": (77.25, 53.9, 44.2, 43.9, 43.9),
    "resnet34-eps0.1-50": (77.2, 53.4, 43.3, 42.4, 42.4),
    "resnet34-eps0.1-10": (66.7, 42.9, 38.8, 38.0, 38.0),
    "resnet34-eps0.03-100": (90.9, 36.9, 35.4, 35.5, 35.5),
    "resnet34-eps0.03-50": (90.0, 36.6, 35.5, 35.5, 35.5),
    "resnet34-eps0.03-10": (86.0, 29.9, 29.3, 29.2, 29.2),
    "mobilenet_v2-eps0.1-100": (79.9, 47.2, 41.2, 40.8, 40.8),
    "mobilenet_v2-eps0.1-50": (79.7, 40.8, 38.8, 37.7, 37.7),
    "mobilenet_v2-eps0.1-10": (40.4, 28.8, 24.5, 24.0, 24.0),
    "mobilenet_v2-eps0.03-100": (89.8, 36.9, 35.8, 35.6, 32.6),
    "mobilenet_v2-eps0.03-50": (87.4, 36.5, 35.5, 35.5, 35.5),
    "mobilenet_v2-eps0.03-10": (36.8, 8.0, 3.0, 2.5, 2.5),
}
"""Table 4.2: benign, then under APGD-CE, APGD-DLR, FAB and Square, each after the ones before."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True, help="holds CIFAR-10")
    parser.add_argument("--dataset", help="folder, where --data-dir holds train/CLASS/* and test/CLASS/*")
    parser.add_argument("--out", type=Path, default=Path("runs/reproduce"), help="folder of the runs")
    parser.add_argument("-o", "--result", type=Path, help="result, without suffix; by default in benchmarks/results")
    parser.add_argument("--minutes", type=minutes, help="end this slice after so long; 0: only the table")
    parser.add_argument("--plan", choices=(GRID, MINUTES), default=GRID, help="which networks")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these networks only")
    parser.add_argument(
        "--limit", type=int, help=f"attack so many test images; by default all, {FAST_IMAGES} in minutes"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", dest="assignments", action="append", default=[], metavar="KEY=VALUE")
    choice = parser.parse_args(arguments)
    choice.result = choice.result or RESULTS / ("reproduce" if choice.plan == GRID else f"reproduce_{choice.plan}")
    if choice.limit is None and choice.plan == MINUTES:
        choice.limit = FAST_IMAGES
    configs = grid(choice)

    def work() -> None:
        runs: Iterable[tuple[str, Run]] = (
            (name, trained(config, choice.out / name)) for name, config in configs.items()
        )
        if choice.plan == MINUTES:
            runs = list(runs)  # trains all networks before the first is attacked
        for name, run in runs:
            for attack in attacks(name):
                attacked(run, attack, choice)

    done = done_within(choice.minutes, work)
    write_table(configs, choice)
    if not done:
        OUTPUT.note("the slice is over; the same command goes on")
    return 0 if done else SLICE_OVER


def grid(choice: argparse.Namespace) -> dict[str, CompressConfig]:
    """The chosen configs by name: preset `strong` first, then the larger network and the stronger adversary."""
    names = sorted((path.stem for path in CONFIGS.glob("*.yaml")), key=_order)
    names = [name for name in names if (name in FAST) == (choice.plan == MINUTES)]
    unknown = set(choice.only or ()) - set(names)
    if unknown:
        raise SystemExit(f"--only {' '.join(sorted(unknown))}: no such network; there are {', '.join(names)}")
    flags = {"data.dir": str(choice.data_dir.absolute()), "data.dataset": choice.dataset, "device": choice.device}
    return {
        name: resolve(preset=preset(name), file=CONFIGS / f"{name}.yaml", flags=flags, assignments=choice.assignments)
        for name in names
        if not choice.only or name in choice.only
    }


def preset(name: str) -> str:
    """The preset that the network's config changes."""
    return "strong" if name in STRONG + FAST else "thesis"


def _order(name: str) -> tuple[int, bool, int, int]:
    arch, adversary, kept = name.split("-")
    if name in STRONG + FAST:
        return (STRONG + FAST).index(name), False, 0, 0
    return len(STRONG), arch != "resnet34", ADVERSARIES.index(adversary), -int(kept)


def attacks(name: str) -> tuple[str, ...]:
    """The AutoAttack of 2020, which the thesis used; for networks that it did not have, today's as well, or alone."""
    if name in FAST:
        return (AUTOATTACK,)
    return (THESIS_AUTOATTACK, AUTOATTACK) if name in STRONG else (THESIS_AUTOATTACK,)


def attacked(run: Run, attack: str, choice: argparse.Namespace) -> Evaluation:
    """The stored evaluation if there is one; otherwise evaluate, or resume an interrupted evaluation."""
    record = stored_evaluation(run, attack)
    if record is not None and record.limit == choice.limit:
        return record
    settings = EvaluateSettings(attack=attack, eps=EPS, limit=choice.limit, device=choice.device)
    return evaluate_run(run, settings, progress=OUTPUT.progress(f"attacking {run.name}"))


def write_table(configs: dict[str, CompressConfig], choice: argparse.Namespace) -> None:
    rows = [row(name, choice.out / name, choice.limit) for name in configs]
    flags = [] if choice.plan == GRID else ["--plan", choice.plan]
    flags += ["--only", *choice.only] if choice.only else []
    flags += ["--limit", str(choice.limit)] if choice.limit else []
    flags += [part for assignment in choice.assignments for part in ("--set", assignment)]
    command = shlex.join(["python", "benchmarks/reproduce.py", "--data-dir", "DATA", *flags])
    write_results(choice.result, command, {"eps": EPS, "limit": choice.limit, "runs": rows}, table(rows))


def row(name: str, path: Path, limit: int | None) -> dict[str, Any]:
    """What there is of one network."""
    found: dict[str, Any] = {"name": name, "preset": preset(name), "epochs": 0}
    if not (path / CONFIG).is_file():
        return found
    run = open_run(path)
    found |= {"epochs": len(run.metrics()), "training_seconds": training_seconds(run), "device": device(run)}
    if not run.finished:
        return found
    found["keep"] = run.checkpoint().sparsity.keep
    for attack in attacks(name):
        record = stored_evaluation(run, attack)
        if record is not None and record.result is not None and record.limit == limit:
            stages = {stage.name: dataclasses.asdict(stage.cumulative) for stage in record.result.stages}
            found[attack] = {
                "accuracies": {"benign": dataclasses.asdict(record.result.clean), **stages},
                "flags": [] if record.audit is None else list(record.audit.flags),
                "seconds": round(record.seconds, 1),
            }
    return found


def device(run: Run) -> str:
    """The GPUs, or else the CPU, of the process that finished the run, or began it."""
    path = run.path / ENVIRONMENT
    if not path.is_file():
        return "–"
    found = json.loads(path.read_text(encoding="utf-8"))
    gpus = [] if run.config.device == "cpu" else sorted(set(found["cuda_devices"]))
    return ", ".join(gpus) or str(found["machine"]["cpu"])


def table(rows: list[dict[str, Any]]) -> str:
    """Table 4.2: accuracy in percent with its 95% interval, and the thesis' figure beside it; then the standard set."""
    attacked_rows = (item[THESIS_AUTOATTACK]["accuracies"] for item in rows if THESIS_AUTOATTACK in item)
    columns = list(next(attacked_rows, ["benign", *ThesisAutoAttack.names]))
    header = ["network", "weights kept", *columns, "AutoAttack, standard set", "validity flags", "training", "on"]
    lines = []
    for item in rows:
        records = [item[attack] for attack in (THESIS_AUTOATTACK, AUTOATTACK) if attack in item]
        flags = sorted({flag for record in records for flag in record["flags"]})
        figures = [figure(item, turn, name) for turn, name in enumerate(columns)]
        checked = (", ".join(flags) or "none") if records else "–"
        spent = f"{item['training_seconds'] / 60:.1f} minutes" if item["epochs"] else "–"
        lines.append([item["name"], progress(item), *figures, standard(item), checked, spent, item.get("device", "–")])
    return markdown(header, lines)


def progress(item: dict[str, Any]) -> str:
    """The weights that a finished network keeps, or how far its training is."""
    if "keep" in item:
        return f"{100 * item['keep']:.1f}%"
    return f"trained for {item['epochs']} epochs" if item["epochs"] else "not run"


def figure(item: dict[str, Any], turn: int, column: str) -> str:
    """One cell: ours if it is there, the thesis' if it has one."""
    record = item.get(THESIS_AUTOATTACK)
    own = share(Accuracy(**record["accuracies"][column])) if record else "–"
    return own + (f"; thesis {THESIS[item['name']][turn]:g}" if item["name"] in THESIS else "")


def standard(item: dict[str, Any]) -> str:
    """Robust accuracy under all of today's AutoAttack."""
    record = item.get(AUTOATTACK)
    return share(Accuracy(**list(record["accuracies"].values())[-1])) if record else "–"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as cause:
        sys.exit(f"reproduce.py: {cause}")
