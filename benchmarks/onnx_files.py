"""Does an ONNX file go the whole way to the CPU targets, whoever wrote it?

    python benchmarks/onnx_files.py [FILE ...] [--target x86-cpu ...] [-o benchmarks/results/onnx_files.json]
    pip download --no-deps rapidocr-onnxruntime && python benchmarks/onnx_files.py --rapidocr rapidocr_onnxruntime-*.whl

A small network of the operators that CNNs use is trained on scikit-learn's digits, enlarged to 32 pixels, until 30% of
its weights are left. Both exporters of torch write it, at each of their opsets, with all shapes fixed and with the
number of images, height and width open. FILE is one of them, such as `legacy-opset11-fixed`; all of them by default.
With --rapidocr, the file is the classifier of that package, which tells lines of text from lines that are upside down;
its images are lines of digits.

Each file goes through import, check and, for every target, export, verify in its default modes, and bench, from the
command line. Exit 1 if a command did not do what `check` had said, or a file was refused.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import TEST, TRAIN, Walk, add_row, row_of, write_images
from PIL import Image
from result_file import RESULTS
from sklearn.datasets import load_digits
from torch import Tensor, nn

from robust_edge import pruning

TARGETS = ("x86-cpu", "x86-cpu-int8", "x86-cpu-sparse")
OF_RAPIDOCR = (*TARGETS, "x86-cpu-csr", "x86-cpu-sparse-int8")
LEGACY, NEW = (11, 13, 17), (18, 19, 20, 21)
FIXED, OPEN = "fixed", "open"
FILES = (
    *(f"legacy-opset{opset}-{shapes}" for opset in LEGACY for shapes in (FIXED, OPEN)),
    *(f"new-opset{opset}-{shapes}" for opset in NEW for shapes in (FIXED, OPEN)),
)
RAPIDOCR = "RapidOCR's classifier"
SIZE, KEEP, EPOCHS, MASKED_EPOCHS = 32, 0.3, 6, 4
LINE = (48, 192)
"""Height and width of the images that RapidOCR's classifier takes."""


class Small(nn.Module):
    """Depthwise and grouped convolutions, squeeze and excite, a sum, a concatenation, pools and a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16, bias=False), nn.BatchNorm2d(16))
        self.gate = nn.Sequential(nn.Conv2d(16, 4, 1), nn.ReLU(), nn.Conv2d(4, 16, 1), nn.Hardsigmoid())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.grouped = nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1, groups=4), nn.BatchNorm2d(32), nn.ReLU6())
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N, 10) probabilities."""
        x = self.stem(x)
        y = nn.functional.hardswish(self.depthwise(x))
        y = torch.cat([x + y * self.gate(nn.functional.adaptive_avg_pool2d(y, 1)), y], 1)
        x = nn.functional.adaptive_avg_pool2d(nn.functional.avg_pool2d(self.grouped(self.pool(y)), 2), 1)
        probabilities: Tensor = self.head(x.view(x.size(0), -1)).softmax(1)
        return probabilities


def trained() -> Small:
    """The network, trained on the digits that `write_images` leaves and pruned to `KEEP` of its weights."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    digits = load_digits()
    images, labels = (torch.tensor(values[TRAIN + TEST :]) for values in (digits.images, digits.target))
    images = nn.functional.interpolate(images[:, None].float() / 16, (SIZE, SIZE), mode="bilinear").repeat(1, 3, 1, 1)
    model = Small()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    state = pruning.init(model, (3, SIZE, SIZE), keep=KEEP)
    for epoch in range(EPOCHS + MASKED_EPOCHS):
        if epoch == EPOCHS:
            state = pruning.finish(state, model, optimizer)
        for batch in torch.randperm(len(images)).split(32):
            loss = nn.functional.nll_loss(model(images[batch]).log(), labels[batch]) + pruning.penalty(state, model)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            state = pruning.step(state, model)
    return model.eval()


def write_file(model: nn.Module, name: str, folder: Path) -> Path:
    """Write one of `FILES` by the exporter, at the opset and with the shapes that its name says."""
    exporter, opset, shapes = name.split("-")
    version, path = int(opset.removeprefix("opset")), folder / f"{name}.onnx"
    example = torch.rand(1 if shapes == FIXED else 2, 3, SIZE, SIZE)
    names = {0: "N", 2: "H", 3: "W"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, about themselves
        if exporter == "legacy":
            axes = {"x": names} if shapes == OPEN else None
            torch.onnx.export(
                model, (example,), str(path), dynamo=False, opset_version=version, input_names=["x"], dynamic_axes=axes
            )
        else:
            sizes = ({axis: torch.export.Dim.DYNAMIC for axis in names},) if shapes == OPEN else None
            torch.onnx.export(
                model, (example,), str(path), dynamo=True, opset_version=version, dynamic_shapes=sizes, verbose=False
            )
    return path


def write_lines(folder: Path) -> None:
    """TRAIN and TEST images of lines of eight digits, half of them upside down: the classes "0" and "180"."""
    digits = load_digits().images
    random = np.random.default_rng(0)
    for number in range(TRAIN + TEST):
        line = np.concatenate([*digits[random.integers(0, len(digits), 8)]], 1)  # (8, 64)
        picture = Image.fromarray((255 - line * 15.9375).astype("uint8")).convert("RGB")
        picture = picture.resize(LINE[::-1], Image.Resampling.BILINEAR).rotate(180 * (number % 2))
        path = folder / ("train" if number < TRAIN else "test") / ("0", "180")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)


def rapidocr_row(wheel: Path, targets: Sequence[str], folder: Path) -> dict[str, Any]:
    """The row of RapidOCR's classifier, which its package holds."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("cls_infer.onnx"))
        path = Path(archive.extract(name, folder))
    images = folder / "images"
    write_lines(images)
    options = ("--input-shape", f"3x{LINE[0]}x{LINE[1]}", "--mean", "0.5", "--std", "0.5")
    row = row_of(str(path), Walk(images=images, targets=targets, importing=options), folder)
    return {**row, "network": RAPIDOCR, "size": f"{LINE[0]}x{LINE[1]}"}


def rows_of(names: Sequence[str], targets: Sequence[str], out: Path) -> bool:
    """Write the rows of `FILES`; returns whether all of them hold."""
    model, holds = trained(), True
    with tempfile.TemporaryDirectory() as images:
        write_images(Path(images), SIZE, 3)
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                path = write_file(model, name, Path(folder))
                row = row_of(str(path), Walk(images=Path(images), targets=targets), Path(folder))
            holds &= add_file(out, {**row, "network": name, "size": SIZE})
    return holds


def add_file(out: Path, row: dict[str, Any]) -> bool:
    """Add a row to the file; returns whether it holds."""
    row["holds"] = row["holds"] and "refused" not in row
    add_row(out, row, "python benchmarks/onnx_files.py", (*FILES, RAPIDOCR))
    return bool(row["holds"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="FILE", help=", ".join(FILES))
    parser.add_argument("--target", nargs="+", help="by default ONNX, int8 and sparse; of RapidOCR's file all five")
    parser.add_argument("--rapidocr", type=Path, metavar="WHEEL")
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "onnx_files.json")
    given = parser.parse_args()
    unknown = sorted({*given.names} - {*FILES})
    if unknown:
        parser.error(f"unknown file {unknown[0]!r}; one of {', '.join(FILES)}")
    if given.rapidocr is None:
        return 0 if rows_of(given.names or FILES, given.target or TARGETS, given.out) else 1
    with tempfile.TemporaryDirectory() as folder:
        row = rapidocr_row(given.rapidocr, given.target or OF_RAPIDOCR, Path(folder))
        return 0 if add_file(given.out, row) else 1


if __name__ == "__main__":
    sys.exit(main())
