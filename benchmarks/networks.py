"""Does every network go the whole way to every CPU target, as `robust-edge check` says?

    python benchmarks/networks.py [NETWORK ...] [--size 64 224] [--target x86-cpu x86-cpu-int8 ...] [--channels 3]
                                  [--epochs 1] [--mode rebuild replay] [-o benchmarks/results/networks.json]

A network is what `compress --arch` takes, which is trained for an epoch or more to 30% of its weights, or a file that
`import` takes. The images are scikit-learn's digits, enlarged to SIZE pixels. `check` comes first. Then, for each
target: export, verify and bench, from the command line. What check refuses must be refused by `compress` or `export`,
too, in one line and before anything is trained. A row holds what each command said; rows of other networks in the
output file stay.

Exit 1 if a command did not do what check had said. An UNDECIDED verdict is no failure: 60 images show little. Nor is
one that fails for `no_twin` alone, as that of a network whose rounding hides its gradient.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
import traceback
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
TARGETS = ("x86-cpu", "x86-cpu-int8", "x86-cpu-csr", "x86-cpu-sparse", "x86-cpu-sparse-int8", "arm-cpu-int8")
SIZES = (64, 224)
MODES = ("rebuild", "replay")
TRAIN, TEST = 120, 60
EPS = "1/255"
DECIDED, UNDECIDED = 0, 5
OF_THE_WEIGHTS = ("8 bits are too few for this network", "The checkpoint is ill-conditioned")
"""What `check` leaves to the export, which judges the trained weights."""
SECONDS_TO_REFUSE = 20
INTERRUPTED = (130, 143)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Walk:
    """What all networks of a table go through.

    Attributes:
        images: folder of the data set `folder`.
        modes: of verify; none for its own default.
        epochs: of training, for what is not a file.
        importing: further options of `import`, for a file.
    """

    images: Path
    targets: Sequence[str] = TARGETS
    modes: Sequence[str] = ()
    epochs: int = 1
    importing: Sequence[object] = ()


def command(*words: object) -> tuple[int, Any, str]:
    """Run `robust-edge WORDS`; returns the exit code, the JSON result or None, and the error line or traceback."""
    result = CliRunner().invoke(command_line, [*map(str, words), "--json", "-q"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        where = traceback.extract_tb(result.exception.__traceback__)[-1]
        text = f"traceback: {type(result.exception).__name__}: {result.exception} ({where.filename}:{where.lineno})"
        return 1, None, " ".join(text.split())[:500]
    if result.exit_code in INTERRUPTED:
        sys.exit(result.exit_code)
    lines = [line.removeprefix("error: ") for line in result.stderr.splitlines() if line.startswith("error: ")]
    return result.exit_code, json.loads(result.stdout) if result.stdout else None, " ".join(lines)


def write_images(folder: Path, size: int, channels: int) -> None:
    """TRAIN and TEST images as files of the data set `folder`."""
    digits = load_digits()
    for number in range(TRAIN + TEST):
        split = "train" if number < TRAIN else "test"
        path = folder / split / str(digits.target[number]) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((digits.images[number] * 15.9375).astype("uint8"))
        picture.convert("L" if channels == 1 else "RGB").resize((size, size), Image.Resampling.BILINEAR).save(path)


def checked(network: str | Path, images: Path, targets: Sequence[str]) -> tuple[dict[str, Any], str]:
    """What `check` says of a run or an architecture, and its error line."""
    subject = (network,) if isinstance(network, Path) else ("--arch", network, "--dataset", "folder")
    data = () if isinstance(network, Path) else ("--data-dir", images)
    _, found, error = command("check", *subject, *data, *(word for name in targets for word in ("--target", name)))
    return found or {}, error


def trained(network: str, images: Path, epochs: int, folder: Path) -> str:
    """Train a network to a new run; returns the error line, "" for none."""
    # an epoch is too short for batch-norm statistics: their network is so ill-conditioned that no conversion agrees
    statistics = f"averaging.reestimate={TRAIN}"
    settings = ("training.batch_size=20", "training.lr=0.02", statistics, "threads=1", "device=cpu")
    chosen = (word for setting in settings for word in ("--set", setting))
    data = ("--dataset", "folder", "--data-dir", images)
    words = ("compress", "--arch", network, *data, "--keep", 0.3, "--eps", 0, "--epochs", epochs, *chosen)
    code, _, error = command(*words, "-o", folder)
    return error or f"exit code {code}" * (code != 0)


def journey(run: Path, target: str, works: bool, modes: Sequence[str], folder: Path) -> tuple[dict[str, Any], bool]:
    """Export, verify and bench; returns what they said, and whether it is what check said."""
    bundle, dense = folder / target, folder / TARGETS[0]
    golden = ("--golden", TEST, "--eps", EPS, "--steps", 1)
    code, exported, error = command("export", run, "--target", target, *golden, "-o", bundle)
    if code != 0:
        foretold = not works or any(reason in error for reason in OF_THE_WEIGHTS)
        return {"export": error}, foretold and _in_one_line(error)
    said = {"logit_error": exported["parity"]["max_logit_error"]}
    few = ("--eps", EPS, "--steps", 2, "--queries", 5)
    code, verdict, error = command("verify", bundle, "--against", run, *few, *_each("--mode", modes))
    said["verify"] = verdict["outcome"] if verdict else error
    as_said = works and code in (DECIDED, UNDECIDED)
    if verdict and verdict["reasons"]:
        said["reasons"] = verdict["reasons"]
        as_said = works and all(reason.startswith("no_twin") for reason in verdict["reasons"])
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


def _each(option: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (option, value)]


def _in_one_line(error: str) -> bool:
    return bool(error) and not error.startswith("traceback")


def row_of(network: str, walk: Walk, folder: Path) -> dict[str, Any]:
    """One row: the whole way of one network of `--arch` or file."""
    start = time.perf_counter()
    run, is_file = folder / "run", Path(network).is_file()
    row: dict[str, Any] = {"network": Path(network).name if is_file else network}
    if is_file:
        data = ("--dataset", "folder", "--data-dir", walk.images)
        code, _, error = command("import", network, *data, *walk.importing, "-o", run)
        if code != 0:
            return {**row, "holds": _in_one_line(error), "refused": error}
    found, refused = checked(run if is_file else network, walk.images, walk.targets)
    row["check_seconds"] = round(time.perf_counter() - start, 1)
    if not is_file:
        start_of_training = time.perf_counter()
        error = trained(network, walk.images, walk.epochs, run)
        if error:
            foretold = bool(refused or found["unprunable"] or not any(not item["problem"] for item in found["targets"]))
            soon = time.perf_counter() - start_of_training < SECONDS_TO_REFUSE and not run.exists()
            return {**row, "holds": foretold and soon and _in_one_line(error), "check": refused, "refused": error}
    if refused:
        return {**row, "holds": False, "check": refused, "refused": "not by compress"}
    row |= {"holds": True, "weights": found["weights"], "targets": {}}
    for answer in found["targets"]:
        said, as_said = journey(run, answer["target"], not answer["problem"], walk.modes, folder)
        row["targets"][answer["target"]] = {"check": answer["problem"] or "works", **said, "as_said": as_said}
        row["holds"] &= as_said
        if not as_said:
            print(json.dumps({answer["target"]: row["targets"][answer["target"]]}), flush=True)
    return {**row, "seconds": round(time.perf_counter() - start, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--size", dest="sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--channels", type=int, choices=(1, 3), default=3)
    parser.add_argument("--target", nargs="+", default=TARGETS)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--mode", nargs="*", default=MODES, help="modes of verify; none for its own default")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "networks.json")
    given = parser.parse_args()
    holds = True
    for size in given.sizes:
        with tempfile.TemporaryDirectory() as images:
            write_images(Path(images), size, given.channels)
            walk = Walk(
                images=Path(images),
                targets=given.target,
                modes=given.mode,
                epochs=given.epochs,
                importing=("--input-shape", f"{given.channels}x{size}x{size}"),
            )
            for network in given.networks:
                with tempfile.TemporaryDirectory() as folder:
                    row = {"size": size, **row_of(network, walk, Path(folder))}
                add_row(given.out, row, "python benchmarks/networks.py", NETWORKS)
                holds &= row["holds"]
    return 0 if holds else 1


def add_row(path: Path, row: dict[str, Any], made_by: str, known: Sequence[str]) -> None:
    """Print the row, and write it with its commit and machine in the place of an older one of its network and size.

    Args:
        path: a file of rows, or a new one.
        row: with "network" and "size".
        made_by: the command that makes the whole file.
        known: networks in the order of their rows; others follow by name.
    """
    print(json.dumps({key: value for key, value in row.items() if key != "targets"}), flush=True)
    row |= provenance(made_by, "torch", "torchvision", "onnxruntime")
    row = json.loads(json.dumps(row).replace(f"{Path(__file__).parents[1]}/", ""))  # lines of modules, in messages
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    rows = [old for old in rows if (old["network"], old["size"]) != (row["network"], row["size"])]
    order = [*known, *sorted({item["network"] for item in (*rows, row)} - {*known})]
    rows = sorted([*rows, row], key=lambda item: (order.index(item["network"]), item["size"]))
    write_result(path, {"train_images": TRAIN, "test_images": TEST, "rows": rows})


if __name__ == "__main__":
    sys.exit(main())
