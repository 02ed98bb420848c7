"""Training throughput: our step against the straightforward loop, on the same model, data and attack.

    python benchmarks/training.py                       # three networks, one thread, CPU
    python benchmarks/training.py --device cuda --precision bf16 --batch 512
    python benchmarks/training.py --old ../release-0.1  # against the tree of an older version, in turns
    python benchmarks/training.py --profile             # where the time of our step goes, by torch's profiler

With `--old`, the older tree's own `benchmarks/training.py` calls its loop, and a third loop has no clean images.

The straightforward loop is what one writes first: torchvision's transforms image by image in a DataLoader,
`loss.backward()` in every step of the attack (so parameter gradients, too), torch's default memory layout and
allocator. Ours is `robust_edge.training.epoch.train_epoch`. Both train a dense network by PGD with a weight of 0.9 on
attacked images, in processes of their own that take turns, so that a noisy minute hits both.

Arithmetic: an attack step is a forward pass and one of equal size for the pixels' gradient; attacked and clean
images then go forward, and back for pixels and weights. That is 2s + 6 forward passes per image for PGD with s steps
(2s + 3 without the clean images), counted by torch's FlopCounterMode on the layers' shapes. The limit is the best rate
of multiply-adds that this machine shows: from registers (machine_limits.c, CPU) or in a matrix product.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from machine_limits import core_limits
from result_file import provenance, write_result
from torch import nn
from torch.profiler import ProfilerActivity
from torch.utils.flop_counter import FlopCounterMode
from training_loops import SHAPE, Task, ours, straightforward

from robust_edge.evaluation.memory import peak_bytes

NETWORKS = ("small_cnn", "resnet18", "mobilenet_v2")
BATCHES = {"small_cnn": 128, "resnet18": 32, "mobilenet_v2": 64}
STRAIGHTFORWARD, OLD, OURS, ATTACKED_ONLY = "straightforward", "older tree", "ours", "attacked only"

OLD_WORKER = """
import json, sys, time
import torch, training
task = training.Task(**json.loads(sys.argv[1]))
torch.set_num_threads(task.threads)
torch.use_deterministic_algorithms(True, warn_only=True)  # as `compress` of release 0.1 did
run = training.ours(task)
run()
print(json.dumps("ready"), flush=True)
while sys.stdin.readline().strip() == "go":
    start = time.perf_counter()
    run()
    if task.device != "cpu":
        torch.cuda.synchronize()
    print(time.perf_counter() - start, flush=True)
print(training.peak_bytes(torch.device(task.device)), flush=True)
"""


# --- taking turns ------------------------------------------------------------------------------------------------


def worker(task: Task, kind: str, pipe: Connection) -> None:
    """Train at each "go" and send the seconds; at the end send the peak memory."""
    torch.set_num_threads(task.threads)
    run = straightforward(task) if kind == STRAIGHTFORWARD else ours(task)
    run()
    pipe.send("ready")
    while pipe.recv() == "go":
        start = time.perf_counter()
        run()
        if task.device != "cpu":
            torch.cuda.synchronize()
        pipe.send(time.perf_counter() - start)
    pipe.send(peak_bytes(torch.device(task.device)))


class OldTree:
    """A worker that trains with the code of another tree; it answers as the `Connection` of a worker of ours does."""

    def __init__(self, tree: Path, task: Task) -> None:
        folders = [str(tree.resolve() / name) for name in ("benchmarks", "", "exporters", "runtimes")]
        known = {name: value for name, value in dataclasses.asdict(task).items() if name != "adversarial_weight"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", OLD_WORKER, json.dumps(known)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)}, cwd=folders[0],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def send(self, order: str) -> None:
        """Give an order."""
        assert self.process.stdin is not None
        print(order, file=self.process.stdin, flush=True)

    def recv(self) -> Any:
        """Wait for the answer."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


def measure(task: Task, rounds: int, old: Path | None) -> dict[str, dict[str, Any]]:
    """All loops, in turn."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection | OldTree] = {}
    processes = []
    if old is None:
        tasks = {STRAIGHTFORWARD: task, OURS: task}
    else:
        pipes[OLD] = OldTree(old, task)
        tasks = {OURS: task, ATTACKED_ONLY: dataclasses.replace(task, adversarial_weight=1.0)}
    for kind, own in tasks.items():
        pipes[kind], end = context.Pipe()
        processes.append(context.Process(target=worker, args=(own, kind, end)))
        processes[-1].start()
        end.close()
    for kind, pipe in pipes.items():
        if pipe.recv() != "ready":
            raise RuntimeError(f"the {kind} worker failed")
    times: dict[str, list[float]] = {kind: [] for kind in pipes}
    for _ in range(rounds):
        for kind, pipe in pipes.items():
            pipe.send("go")
            times[kind].append(pipe.recv())
    peaks = {}
    for kind, pipe in pipes.items():
        pipe.send("stop")
        peaks[kind] = pipe.recv()
    for process in processes:
        process.join()
    images = task.batch * task.batches
    return {
        kind: {
            "images_per_second": round(images / statistics.median(spent), 2),
            "seconds": [round(value, 4) for value in spent],
            "peak_bytes": peaks[kind],
        }
        for kind, spent in times.items()
    }


# --- profile ------------------------------------------------------------------------------------------------------


def profile(task: Task, least: float = 0.005) -> dict[str, Any]:
    """Seconds of one pass over the data, and the share of each of torch's operators in them.

    Times are those of the device, without what an operator calls; "outside of operators" is the rest of the pass. On a
    GPU they are those of the kernels that the operator itself starts.
    Operators of less than the share `least` are summed up.
    """
    run, cuda = ours(task), task.device != "cpu"
    run()
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * cuda]
    with torch.profiler.profile(activities=activities) as recorded:
        start = time.perf_counter()
        run()
        if cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    microseconds = {
        event.key: event.self_device_time_total if cuda else event.self_cpu_time_total
        for event in recorded.key_averages()
        if event.device_type.name == "CPU"  # the operators, not the kernels
    }
    shares = {name: spent / 1e6 / seconds for name, spent in microseconds.items()}
    found = {name: share for name, share in sorted(shares.items(), key=lambda item: -item[1]) if share >= least}
    found["other operators"] = sum(shares.values()) - sum(found.values())
    found["outside of operators"] = 1 - sum(found.values())
    return {"seconds": round(seconds, 3), "shares": {name: round(share, 4) for name, share in found.items()}}


# --- limits ------------------------------------------------------------------------------------------------------


def forward_flops(model: nn.Module) -> int:
    """Of one image, a multiply-add counting as two; convolutions and matrix products."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model.eval()(torch.rand(1, *SHAPE))
    return int(counter.get_total_flops())


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a matrix product; the best of many."""
    side = 1024 if device.type == "cpu" else 8192
    left, right = (torch.rand(side, side, device=device).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(20):
        start = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def register_rate() -> float | None:
    """FLOP/s of one core on registers; None without a C compiler."""
    try:
        return 2e9 * core_limits()["mac_per_ns"]
    except (OSError, subprocess.CalledProcessError):
        return None


def limit(choice: argparse.Namespace) -> dict[str, float | str]:
    """The best rate seen, and by what."""
    device = torch.device(choice.device)
    rates = {"matrix product": product_rate(device, torch.bfloat16 if choice.precision == "bf16" else torch.float32)}
    if device.type == "cpu" and (registers := register_rate()) is not None:
        rates["registers"] = registers * choice.threads
    best = max(rates, key=lambda name: rates[name])
    return {"flops": rates[best], "by": best}


# --- report ------------------------------------------------------------------------------------------------------


def cell(name: str, choice: argparse.Namespace, best: float) -> dict[str, Any]:
    task = Task(
        network=name, batch=choice.batch or BATCHES[name], steps=choice.steps, batches=choice.batches,
        threads=choice.threads, device=choice.device, precision=choice.precision, compile=choice.compile,
    )  # fmt: skip
    if choice.profile:
        return {"network": name, "batch": task.batch, "steps": task.steps, "profile": profile(task)}
    found = measure(task, choice.rounds, choice.old)
    forward, reference = forward_flops(task.model()), next(iter(found.values()))["seconds"]
    flops = forward * (2 * task.steps + 6)
    for kind, loop in found.items():
        needed = forward * (2 * task.steps + 3) if kind == ATTACKED_ONLY else flops
        loop["share_of_limit"] = round(loop["images_per_second"] * needed / best, 4)
        ratios = [a / b for a, b in zip(reference, loop["seconds"], strict=True)]
        loop["ratio"] = round(statistics.median(ratios), 3)
        loop["ratio_range"] = [round(min(ratios), 3), round(max(ratios), 3)]
    return {
        "network": name, "batch": task.batch, "steps": task.steps, "n": choice.rounds,
        "images_per_round": task.batch * task.batches, "flops_per_image": flops, "loops": found,
    }  # fmt: skip


def table(report: dict[str, Any]) -> str:
    lines = [f"limit: {report['limit']['flops'] / 1e9:.0f} GFLOP/s ({report['limit']['by']})"]
    if any("loops" in row for row in report["networks"]):
        lines.append(f"{'network':<14}{'loop':<17}{'images/s':>10}{'of limit':>10}{'peak MiB':>10}{'ratio':>8}")
    for row in report["networks"]:
        if "profile" in row:
            lines += [
                f"{row['network']:<14}{name:<42}{share:>8.1%}" for name, share in row["profile"]["shares"].items()
            ]
            continue
        for kind, found in row["loops"].items():
            lines.append(
                f"{row['network']:<14}{kind:<17}{found['images_per_second']:>10.1f}{found['share_of_limit']:>10.1%}"
                f"{found['peak_bytes'] >> 20:>10}{found['ratio']:>8.2f}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--batch", type=int, help=f"images per step; by default {BATCHES}")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batches", type=int, default=2, help="per round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"), help="of ours")
    parser.add_argument("--compile", action="store_true", help="ours through torch.compile")
    parser.add_argument("--profile", action="store_true", help="where the time of ours goes, without a comparison")
    parser.add_argument("--old", type=Path, metavar="TREE", help="tree of an older version to compare with")
    parser.add_argument("-o", "--out", type=Path)
    choice = parser.parse_args()
    if choice.profile and choice.old:
        parser.error("--profile compares nothing; leave --old out")
    torch.set_num_threads(choice.threads)
    best = limit(choice)
    words = ["TREE" if choice.old and word == str(choice.old) else word for word in sys.argv[1:]]
    report = {
        **provenance(" ".join(["python", "benchmarks/training.py", *words]), "torch", "numpy"),
        "device": torch.cuda.get_device_name(choice.device) if choice.device != "cpu" else "cpu",
        "threads": choice.threads,
        "precision": choice.precision,
        "limit": best,
        "networks": [],
    }
    for name in choice.networks:
        report["networks"].append(cell(name, choice, float(best["flops"])))
        if choice.out:
            write_result(choice.out, report)
    print(table(report))


if __name__ == "__main__":
    main()
