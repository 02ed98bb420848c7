"""Does every network go the whole way to every CPU target, as `robust-edge check` says?

    python benchmarks/networks.py [--size 64 224] [--target x86-cpu x86-cpu-int8 x86-cpu-csr x86-cpu-sparse]
                                  [--epochs 4] [--mode MODE ...] [NETWORK ...] [-o benchmarks/results/networks.json]

A network is what `compress --arch` takes, which is trained for a few epochs to 30% of its weights, or a file that
`import` takes. The images are scikit-learn's digits in three channels, enlarged to SIZE pixels. Then, for each target:
check, export, verify and bench, from the command line. Where check says that a target does not work, export must refuse
it in one line. A row holds what each command said; rows of other networks in the output file stay.

Exit 1 if a command did not do what check had said. An UNDECIDED verdict is no failure: 60 images show little.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from PIL import Image
from result_file import RESULTS, provenance, write_result
from sklearn.datasets import load_digits

from robust_edge.cli import main as command_line

TORCHVISION = (
    "shufflenet_v2_x0_5", "regnet_y_400mf", "efficientnet_b0", "densenet121", "mobilenet_v3_small", "squeezenet1_1",
    "googlenet", "convnext_tiny", "mnasnet0_5", "resnext50_32x4d",
)  # fmt: skip
NETWORKS = (*(f"torchvision/{name}" for name in TORCHVISION), "timm/vit_tiny_patch16_224")
TARGETS = ("x86-cpu", "x86-cpu-int8", "x86-cpu-csr", "x86-cpu-sparse")
SIZES = (64, 224)
TRAIN, TEST = 200, 60
EPS = "1/255"
DECIDED, UNDECIDED = 0, 5
TOO_FEW_BITS = "8 bits are too few for this network"
"""What `check` leaves to the export, which judges it on images."""
INTERRUPTED = (130, 143)


def command(*words: object) -> tuple[int, Any, str]:
    """Run `robust-edge WORDS`; returns the exit code, the JSON result or None, and the error line."""
    result = CliRunner().invoke(command_line, [*map(str, words), "--json", "-q"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code in INTERRUPTED:
        sys.exit(result.exit_code)
    lines = [line.removeprefix("error: ") for line in result.stderr.splitlines() if line.startswith("error: ")]
    return result.exit_code, json.loads(result.stdout) if result.stdout else None, " ".join(lines)


def write_images(folder: Path, size: int) -> None:
    """TRAIN and TEST images as files of the data set `folder`."""
    digits = load_digits()
    for number in range(TRAIN + TEST):
        split = "train" if number < TRAIN else "test"
        path = folder / split / str(digits.target[number]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((digits.images[number] * 15.9375).astype("uint8"))
        picture.convert("RGB").resize((size, size), Image.Resampling.BILINEAR).save(path)


def run_of(network: str, images: Path, epochs: int, folder: Path) -> tuple[Path, str]:
    """Train or import the network; returns the run and the error line."""
    data = ("--dataset", "folder", "--data-dir", images)
    if Path(network).is_file():
        code, _, error = command("import", network, *data, "-o", folder)
    else:
        settings = ("training.batch_size=20", "training.lr=0.02", "threads=1", "device=cpu")
        chosen = (word for setting in settings for word in ("--set", setting))
        words = ("compress", "--arch", network, *data, "--keep", 0.3, "--eps", 0, "--epochs", epochs, *chosen)
        code, _, error = command(*words, "-o", folder)
    return folder, error or f"exit code {code}" * (code != 0)


def journey(run: Path, target: str, works: bool, modes: Sequence[str], folder: Path) -> tuple[dict[str, Any], bool]:
    """Export, verify and bench; returns what they said, and whether it is what check said."""
    bundle, dense = folder / target, folder / TARGETS[0]
    golden = ("--golden", TEST, "--eps", EPS, "--steps", 1)
    code, exported, error = command("export", run, "--target", target, *golden, "-o", bundle)
    if code != 0:
        return {"export": error}, bool(error) and (not works or TOO_FEW_BITS in error)
    said = {"logit_error": exported["parity"]["max_logit_error"]}
    few = ("--eps", EPS, "--steps", 2, "--queries", 5, *(word for mode in modes for word in ("--mode", mode)))
    code, verdict, error = command("verify", bundle, "--against", run, *few)
    said["verify"] = verdict["outcome"] if verdict else error
    as_said = works and code in (DECIDED, UNDECIDED)
    if verdict and verdict["reasons"]:
        said["reasons"] = verdict["reasons"]
    if verdict and verdict["undecided"]:
        said["undecided"] = verdict["undecided"]
    together = dict.fromkeys([dense, bundle] if dense.is_dir() else [bundle])
    code, timed, error = command("bench", *together, "--images", 5, "--seconds", 0.2)
    if timed is None:
        return {**said, "bench": error}, False
    entry = timed["entries"][-1]
    said["p50_ms"] = round(entry["latencies"][0]["p50_ns"] / 1e6, 3)
    said["speedup"] = round(entry["speedup"]["one_image"], 2)
    return said, as_said and code == 0


def row_of(network: str, size: int, targets: Sequence[str], epochs: int, modes: Sequence[str]) -> dict[str, Any]:
    """One row: the whole way of one network at one size."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images", size)
        run, error = run_of(network, folder / "images", epochs, folder / "run")
        row: dict[str, Any] = {
            "network": Path(network).name if Path(network).is_file() else network,
            "size": size,
            "holds": not error,
        }
        if error:
            return {**row, "refused": error}
        _, checked, error = command("check", run, *(word for target in targets for word in ("--target", target)))
        if error:
            return {**row, "holds": False, "refused": error}
        row |= {"weights": checked["weights"], "targets": {}}
        for answer in checked["targets"]:
            said, as_said = journey(run, answer["target"], not answer["problem"], modes, folder)
            row["targets"][answer["target"]] = {"check": answer["problem"] or "works", **said, "as_said": as_said}
            row["holds"] &= as_said
            print(json.dumps({answer["target"]: row["targets"][answer["target"]]}), flush=True)
    return {**row, "seconds": round(time.perf_counter() - start, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--size", nargs="+", type=int, default=SIZES)
    parser.add_argument("--target", nargs="+", default=TARGETS)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--mode", nargs="+", default=(), help="modes of verify; by default its own default")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "networks.json")
    given = parser.parse_args()
    holds = True
    for network in given.networks:
        for size in given.size:
            row = row_of(network, size, given.target, given.epochs, given.mode)
            print(json.dumps({key: value for key, value in row.items() if key != "targets"}), flush=True)
            add_row(given.out, row)
            holds &= row["holds"]
    return 0 if holds else 1


def add_row(path: Path, row: dict[str, Any]) -> None:
    """Write the row into the file, in the place of an older one of the same network and size."""
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    rows = [old for old in rows if (old["network"], old["size"]) != (row["network"], row["size"])]
    known = list(NETWORKS)
    order = [*known, *sorted({item["network"] for item in (*rows, row)} - {*known})]
    rows = sorted([*rows, row], key=lambda item: (order.index(item["network"]), item["size"]))
    found = provenance("python benchmarks/networks.py", "torch", "torchvision", "onnxruntime")
    write_result(path, {**found, "train_images": TRAIN, "test_images": TEST, "rows": rows})


if __name__ == "__main__":
    sys.exit(main())
