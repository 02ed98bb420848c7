"""Measures what `verify` compares when it repeats the attack of a bundle's stored images, for honest and false exports.

    python benchmarks/stored_attack.py --run runs/digits-10 --network "small_cnn on digits" \
        -o benchmarks/results/stored_attack.json

An honest export was made by another arithmetic: another CPU, number of threads, library of convolutions, order of
additions. A false one took fewer steps than it claims, started elsewhere, or moved the images that it broke back over
the decision boundary. The limits in `robust_edge/verification/stored_attack.py` lie between the two; the noise on the
gradients is what it makes itself. Each row counts, beside the pixels, the images that are right as stored and broken
when the attack is repeated (`mended`) and the reverse (`broken`); `closest` is the smallest distance of a stored image
from the decision boundary, relative to the largest logit. Rows replace those of the same network in the output file;
the others stay.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from result_file import provenance, write_result
from torch import Tensor, nn

from robust_edge.attacks.pgd import Pgd
from robust_edge.evaluation.oracle import TorchOracle
from robust_edge.export import make_golden
from robust_edge.run.directory import open_run
from robust_edge.run.images import evaluation_images
from robust_edge.verification.stored_attack import Repetition, RoundedGradients
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.golden import Golden
from robust_edge_runtimes.core.logits import is_right
from robust_edge_runtimes.scoring import margins

OLD_CPU = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}


class InFloat64(nn.Module):
    """The same network in float64."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).double()

    def forward(self, images: Tensor) -> Tensor:
        """As the network."""
        logits: Tensor = self.network(images.double()).float()
        return logits


def with_noise(network: nn.Module, share: float) -> nn.Module:
    noisy, generator = copy.deepcopy(network), torch.Generator().manual_seed(0)
    for weights in noisy.parameters():
        weights.data *= 1 + share * torch.randn(weights.shape, generator=generator)
    return noisy


def channels_last(network: nn.Module) -> nn.Module:
    changed: nn.Module = copy.deepcopy(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return changed


@contextlib.contextmanager
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


Kind = tuple[Callable[[nn.Module], nn.Module], Callable[[], contextlib.AbstractContextManager[object]]]
HONEST: dict[str, Kind] = {
    "the same": (lambda network: network, contextlib.nullcontext),
    "2 threads": (lambda network: network, two_threads),
    "without oneDNN": (lambda network: network, lambda: torch.backends.mkldnn.flags(enabled=False)),
    "channels last": (
        lambda network: channels_last(network),
        contextlib.nullcontext,
    ),
    "float64": (InFloat64, contextlib.nullcontext),
    "noise of 1e-6 on the weights": (lambda network: with_noise(network, 1e-6), contextlib.nullcontext),
    "noise of 1e-6 on the gradients": (lambda network: RoundedGradients(network, 1e-6), contextlib.nullcontext),
    "noise of 1e-5 on the gradients": (lambda network: RoundedGradients(network, 1e-5), contextlib.nullcontext),
    "noise of 1e-4 on the gradients": (lambda network: RoundedGradients(network, 1e-4), contextlib.nullcontext),
}
FALSE = {"half of the steps": (0.5, 0), "four fifths of the steps": (0.8, 0), "another seed": (1.0, 1)}


def stored(run: Path, images: int, kind: str, steps: int, seed: int = 0) -> Golden:
    """The images that an export stores under this arithmetic."""
    opened = open_run(run)
    make, context = HONEST[kind]
    eps = opened.config.attack.eps or 8 / 255
    split = evaluation_images(opened, limit=images)
    network = make(opened.load_model())
    network.eval()
    with context():
        return make_golden(network, split, Pgd(steps=steps, restarts=1), Threat(eps), seed)


def moved_back(golden: Golden, share: float, eps: float) -> Golden:
    """The images that the attack broke, moved back towards the clean ones by a share of ε at every pixel."""
    broken = ~is_right(golden.attacked_logits, golden.labels)[:, None, None, None]
    step = np.clip(golden.clean - golden.attacked, -share * eps, share * eps)
    return dataclasses.replace(golden, attacked=(golden.attacked + broken * step).astype(np.float32))


def row(run: Path, kind: str, steps: int, golden: Golden) -> dict[str, object]:
    """The comparison of these stored images with a repetition of `steps` steps."""
    opened = open_run(run)
    spec = Pgd(steps=steps, restarts=1).spec(Threat(opened.config.attack.eps or 8 / 255), 0)
    network = opened.load_model()
    again = Repetition(spec, golden, network, np.arange(len(golden.labels)))
    stored, repeated = TorchOracle(network).logits(again.stored), TorchOracle(network).logits(again.images)
    right, still = is_right(stored, golden.labels), is_right(repeated, golden.labels)
    return {
        "export": kind,
        "steps": steps,
        "images": int((again.images != golden.clean).any(axis=(1, 2, 3)).sum()),
        "pixels_elsewhere": round(again.elsewhere(golden.attacked), 5),
        "mended": int((right & ~still).sum()),
        "broken": int((still & ~right).sum()),
        "closest": float(f"{np.abs(margins(stored, golden.labels)).min() / np.abs(stored).max():.2g}"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, type=Path)
    parser.add_argument("--network", required=True, help="what the run is called in the table")
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 50], help="that the exports claim")
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for steps in options.steps:
        made = {kind: stored(options.run, options.images, kind, steps) for kind in HONEST}
        made |= {
            kind: stored(options.run, options.images, "the same", int(share * steps), seed)
            for kind, (share, seed) in FALSE.items()
        }
        eps = open_run(options.run).config.attack.eps or 8 / 255
        made["broken images moved back by 0.098 eps"] = moved_back(made["the same"], 0.098, eps)
        made["a CPU without AVX"] = on_an_old_cpu(options.run, options.images, steps)
        for kind, golden in made.items():
            rows.append({"network": options.network, **row(options.run, kind, steps, golden)})
            print(rows[-1], flush=True)
    if options.out:
        add_rows(options.out, options.network, rows)


def on_an_old_cpu(run: Path, images: int, steps: int) -> Golden:
    os.environ.update(OLD_CPU)  # read when torch is imported
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(stored, run, images, "the same", steps).result()


def add_rows(path: Path, network: str, rows: list[dict[str, object]]) -> None:
    command = "python benchmarks/stored_attack.py --run RUN --network NAME"
    old = json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []
    kept = [item for item in old if item["network"] != network]
    write_result(path, {**provenance(command, "torch"), "rows": [*kept, *rows]})


if __name__ == "__main__":
    main()
