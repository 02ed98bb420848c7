"""Evaluate four digits networks with every attack: the robustness tables of docs/evaluation.md.

    pip install 'robust-edge[all]'
    python examples/robustness_digits.py --out robustness-digits

Trains benign-dense, robust-dense, robust-10 and robust-5 (10% and 5% of the weights kept; small CNN, preset quick,
PGD at ε = 0.1), attacks each with FGSM, PGD-50, Carlini-Wagner, both AutoAttack sets and increasing ε, averages the
benign with the robust network (Table C.1), tests every network on the attack images of the others (Algorithm 3), and
writes report.html with its tables as Markdown and CSV. The same command resumes it after an interruption.
"""

import argparse
import os
import platform
from pathlib import Path

import torch

from robust_edge.config.settings import resolve
from robust_edge.evaluation.evaluate import evaluate_run
from robust_edge.evaluation.record import stored_evaluation
from robust_edge.evaluation.saliency import evaluate_saliency
from robust_edge.evaluation.settings import EvaluateSettings, TransferSettings
from robust_edge.evaluation.tables import evaluation_table, transfer_table
from robust_edge.evaluation.transfer import run_transfer
from robust_edge.reporting.page import write_report
from robust_edge.run.directory import open_run
from robust_edge.training.compress import compress, resume
from robust_edge_runtimes.cli.output import Output
from robust_edge_runtimes.core.environment import machine

EPS = 0.1
NETWORKS = {
    "benign-dense": {"attack.eps": 0.0, "pruning.keep": 1.0},
    "robust-dense": {"attack.eps": EPS, "pruning.keep": 1.0},
    "robust-10": {"attack.eps": EPS, "pruning.keep": 0.1},
    "robust-5": {"attack.eps": EPS, "pruning.keep": 0.05},
}
ATTACKS = ("fgsm", "pgd", "cw", "curve", "autoattack", "thesis-autoattack")
COMBINED = ("pgd", "cw")
COMBINED_STEPS = 32  # Table C.1

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--out", type=Path, default=Path("robustness-digits"))
parser.add_argument("--limit", type=int, help="attack a fixed random subset of so many test images")
parser.add_argument("--epochs", type=int, help="train for less long, to try this script")
parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS], help="train and attack these only")
parser.add_argument("--threads", type=int, default=os.cpu_count())
arguments = parser.parse_args()
torch.set_num_threads(arguments.threads)
output = Output(json=False, verbosity=0)

runs = {}
for name in arguments.networks:
    path = arguments.out / "runs" / name
    if (path / "config.yaml").is_file():
        resume(path, progress=output.progress(f"training {name}", begun=None))
    else:
        config = resolve(preset="quick", flags={**NETWORKS[name], "training.epochs": arguments.epochs})
        compress(config, path, progress=output.progress(f"training {name}"))
    runs[name] = open_run(path)


def attack(name: str, attack_name: str, *, other: str | None = None) -> None:
    record_name = attack_name if other is None else f"{attack_name}-with-{other}"
    record = stored_evaluation(runs[name], record_name)
    if record is None or record.limit != arguments.limit:
        steps = COMBINED_STEPS if other is not None else None
        eps = None if attack_name == "curve" else EPS
        settings = EvaluateSettings(attack=attack_name, eps=eps, steps=steps, limit=arguments.limit)
        record = evaluate_run(
            runs[name],
            settings,
            other=None if other is None else runs[other],
            progress=output.progress(f"{record_name} on {name}"),
        )
    print(f"\n{record_name}\n{evaluation_table(record)}", flush=True)


for attack_name in ATTACKS:
    for name in runs:
        attack(name, attack_name)
if {"robust-dense", "benign-dense"} <= set(runs):
    for attack_name in COMBINED:
        attack("robust-dense", attack_name, other="benign-dense")
for run in runs.values():
    evaluate_saliency(run)

matrix = arguments.out / "transfer.json"
settings = TransferSettings(limit=arguments.limit)
result = run_transfer([*runs.values()], [*runs.values()], settings, matrix, progress=output.progress("transfer"))
print(f"\n{transfer_table(result)}")

write_report([*runs.values()], (), (), arguments.out / "report.html", transfers=(matrix,))
it = machine()
print(f"\n{arguments.out / 'report.html'}, {arguments.out / 'report.md'}")
print(f"{it.cpu}, {arguments.threads} thread(s), Python {platform.python_version()}, torch {torch.__version__}")
