"""How close are int8 exports to fp32, beside ONNX Runtime's quantize_static after quant_pre_process?

    python benchmarks/int8_quality.py --data-dir data/cifar10 [-o benchmarks/results/int8_quality.json]

Small networks of torchvision's classes are trained for five epochs on 8,000 images of a folder with train/CLASS/* and
test/CLASS/*. Each is quantised for x86 (7-bit weights, right on every CPU) and for ARM (8-bit weights) as `export`
does, and by quantize_static (QDQ, per channel) with each of its calibration methods and the same range of weights.
All files are calibrated on the same 256 training images, and the logits of 500 test images are compared with fp32,
every operator computed as the file states it. Errors are relative to the largest absolute logit.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationMethod, QuantFormat, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from result_file import RESULTS, provenance, write_result
from torch import nn

from robust_edge.data import Dataset, load_dataset
from robust_edge.data.settings import DataConfig
from robust_edge.torchvision_compat import torchvision_module
from robust_edge_exporters.artifact import ExportSettings
from robust_edge_exporters.formats.onnx.calibration import batches, scores
from robust_edge_exporters.formats.onnx.export import converted
from robust_edge_exporters.formats.onnx.int8 import Quantiser
from robust_edge_exporters.target import target_named

EPOCHS, BATCH = 5, 64
CALIBRATION, HELD_OUT, TEST = 256, 128, 500
TARGETS = ("x86-cpu-int8", "arm-cpu-int8")
PEERS = (CalibrationMethod.MinMax, CalibrationMethod.Percentile, CalibrationMethod.Entropy)


def regnet() -> nn.Module:
    module = torchvision_module("models.regnet")
    blocks = module.BlockParams.from_init_params(depth=8, w_0=24, w_a=24.0, w_m=2.2, group_width=8, se_ratio=0.25)
    network: nn.Module = module.RegNet(blocks, num_classes=10, stem_width=16)
    return network


def shufflenet() -> nn.Module:
    network: nn.Module = torchvision_module("models").ShuffleNetV2([2, 3, 2], [16, 32, 64, 96, 192], num_classes=10)
    return network


def mobilenet_v2() -> nn.Module:
    rows = [[1, 16, 1, 1], [6, 24, 2, 1], [6, 32, 2, 2], [6, 64, 2, 2], [6, 96, 2, 1]]
    network: nn.Module = torchvision_module("models").MobileNetV2(10, width_mult=0.35, inverted_residual_setting=rows)
    return network


def mobilenet_v3() -> nn.Module:
    network: nn.Module = torchvision_module("models").mobilenet_v3_small(num_classes=10, width_mult=0.5)
    return network


def convnext() -> nn.Module:
    module = torchvision_module("models.convnext")
    rows = [module.CNBlockConfig(*row, 2) for row in ((24, 48), (48, 96), (96, None))]
    network: nn.Module = module.ConvNeXt(rows, num_classes=10, stochastic_depth_prob=0.0)
    return network


NETWORKS = {build.__name__: build for build in (regnet, shufflenet, mobilenet_v2, mobilenet_v3, convnext)}


class Normalised(nn.Module):
    """Raw pixels in [0, 1] to logits."""

    def __init__(self, network: nn.Module, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
        super().__init__()
        self.network = network
        for name, values in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1))

    mean: torch.Tensor
    std: torch.Tensor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 10)."""
        logits: torch.Tensor = self.network((images - self.mean) / self.std)
        return logits


def trained(name: str, dataset: Dataset) -> nn.Module:
    torch.manual_seed(0)
    model = Normalised(NETWORKS[name](), dataset.channel_statistics())
    weights = list(model.parameters())
    optimiser: torch.optim.Optimizer = torch.optim.SGD(weights, 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    if name == "convnext":
        optimiser = torch.optim.AdamW(weights, 3e-3, weight_decay=0.05)
    steps, rate = len(dataset.train) // BATCH, optimiser.param_groups[0]["lr"]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=EPOCHS * steps)
    for _ in range(EPOCHS):
        order = torch.randperm(len(dataset.train))[: steps * BATCH]
        for index in order.split(BATCH):
            images = dataset.train.floats(index)
            images = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)
            loss = nn.functional.cross_entropy(model.train()(images), dataset.train.labels[index])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return model.eval().requires_grad_(False)


class Reader:
    """Images for quantize_static."""

    def __init__(self, program: Any, images: np.ndarray) -> None:
        self.name, self.batches = program.graph.input[0].name, batches(program, images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        """The next batch, or None after the last."""
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch}


def peer(program: Any, method: CalibrationMethod, images: np.ndarray, *, reduce_range: bool) -> Any:
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        raw, ready, written = (str(Path(folder) / f"{name}.onnx") for name in ("raw", "ready", "written"))
        onnx.save(program, raw)
        quant_pre_process(raw, ready)
        reader = Reader(onnx.load(ready), images)
        options = {"per_channel": True, "reduce_range": reduce_range, "calibrate_method": method}
        quantize_static(ready, written, reader, quant_format=QuantFormat.QDQ, **options)
        return onnx.load(written)


def errors(logits: np.ndarray, expected: np.ndarray) -> dict[str, float]:
    apart = np.abs(logits - expected).astype(np.float64) / np.abs(expected).max()
    figures = {"mean": apart.mean(), "rms": np.sqrt((apart**2).mean()), "max": apart.max()}
    same = 100 * (logits.argmax(1) == expected.argmax(1)).mean()
    return {**{name: round(float(value), 5) for name, value in figures.items()}, "classes equal (%)": round(same, 1)}


def rows(name: str, dataset: Dataset) -> Iterator[dict[str, Any]]:
    model, (calibration, held_out) = trained(name, dataset), training_images(dataset)
    test = dataset.test.first(TEST).floats(slice(None)).numpy()
    for target in map(target_named, TARGETS):
        assert target.int8 is not None
        program = converted(model, dataset.shape, target)
        expected = scores(program, test)
        right = 100 * (expected.argmax(1) == dataset.test.labels[:TEST].numpy()).mean()
        settings = ExportSettings(precision="int8", calibration=calibration, held_out=held_out)
        quantiser = Quantiser(program, target.int8, settings)
        head = {"network": name, "fp32 right (%)": round(right, 1), "target": target.name}
        yield {**head, "by": f"export, {quantiser.method}", **errors(scores(quantiser.program(), test), expected)}
        for method in PEERS:
            made = peer(program, method, calibration, reduce_range=target.int8.reduce_range)
            yield {**head, "by": f"quantize_static, {method.name}", **errors(scores(made, test), expected)}


def training_images(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    images = dataset.train.first(CALIBRATION + HELD_OUT).floats(slice(None)).numpy()
    return images[:CALIBRATION], images[CALIBRATION:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "int8_quality.json")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    dataset = load_dataset(DataConfig(dataset="folder", dir=given.data_dir, limit_train=8000, limit_test=1000))
    found = []
    for name in given.network:
        for row in rows(name, dataset):
            found.append(row)
            print(json.dumps(row), flush=True)
    command = "python benchmarks/int8_quality.py --data-dir data/cifar10"
    write_result(given.out, {**provenance(command, "onnxruntime", "torch", "torchvision"), "rows": found})


if __name__ == "__main__":
    main()
