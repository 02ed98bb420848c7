"""Times the sparse engine against dense engines on the same machine, and against the machine's own limits.

    python benchmarks/sparse_engine.py --out benchmarks/results/sparse_engine.json --plot docs/figures/sparse-engine.png
    python benchmarks/sparse_engine.py --networks resnet18-224 --keep 0.1 --scope layer --images 1 --threads 1

Every cell runs all engines interleaved, so that a noisy minute hits all of them, and a single thread stays on one core;
medians and ratios of medians are reported. Weights are random with a fraction `keep` left in every prunable layer
(scope "layer"), or above one global threshold (scope "global"). ONNX Runtime int8 is its static QDQ quantisation, per
channel, uint8 activations.

Cells that were not asked for stay in the result file, each with the machine and the commit that it was made on.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import ctypes
import io
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from argument_types import at_least_one, fraction, seconds
from machine_limits import machine_limits
from other_engines import Infer, has_openvino, other_engines
from result_file import RESULTS, provenance, write_result
from sparse_engine_plot import plot
from sparse_engine_tables import BASELINE, OURS, show
from torch import nn

from robust_edge.models import ModelSpec, build_model
from robust_edge_exporters.native import NativeExport, export_native
from robust_edge_exporters.native.export import LayerReport
from robust_edge_runtimes.formats.native.engine import FLAGS, Network, compile_library

SMALL = {name: (name, 32) for name in ("resnet18", "resnet34", "mobilenet_v2")}
LARGE = {
    f"{name}-224": (f"torchvision/{name}", 224)
    for name in ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "regnet_y_400mf")
}
NETWORKS = SMALL | LARGE  # architecture, and height and width of an image, by name
KEEPS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
SCOPES = ("layer", "global")
CLASSES = tuple("0123456789")
CSR_KEEP = 0.2  # above it, for batches and for large images, CSR products take seconds

WARM_MS = 50  # after the others' turns, threads need about so long to reach their speed


class CsrConv(torch.nn.Module):
    """A convolution as unfold and a product with a sparse matrix; TorchScript compiles it."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        matrix = conv.weight.detach().flatten(1).to_sparse_csr()
        self.crow, self.col, self.val = matrix.crow_indices(), matrix.col_indices(), matrix.values()
        self.rows, self.columns = matrix.shape
        self.kernel, self.stride = conv.kernel_size[0], conv.stride[0]
        self.pad = int(conv.padding[0])  # a string in torch's type, for padding="same"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, K, H', W')."""
        columns = nn.functional.unfold(x, (self.kernel, self.kernel), padding=self.pad, stride=self.stride)
        height = (x.size(2) + 2 * self.pad - self.kernel) // self.stride + 1
        matrix = torch.sparse_csr_tensor(self.crow, self.col, self.val, [self.rows, self.columns])
        flat = columns.transpose(0, 1).reshape(self.columns, -1)
        y = torch.matmul(matrix, flat).reshape(self.rows, x.size(0), height, -1)
        return y.transpose(0, 1)


def shape_of(name: str) -> tuple[int, int, int]:
    """Channels, height and width of an image of a network."""
    size = NETWORKS[name][1]
    return 3, size, size


def network(name: str, keep: float, scope: str) -> nn.Module:
    """The network with random weights, a fraction `keep` of the prunable ones left."""
    torch.manual_seed(0)
    spec = ModelSpec(arch=NETWORKS[name][0], shape=shape_of(name), classes=CLASSES, mean=(0.5,) * 3, std=(0.25,) * 3)
    model = build_model(spec).eval()
    weights = [m.weight.data for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    magnitudes = torch.cat([w.abs().flatten() for w in weights])
    for weight in weights:
        among = weight.abs().flatten() if scope == "layer" else magnitudes
        kept = max(1, round(keep * among.numel()))
        weight *= weight.abs() >= among.topk(kept).values[-1]
    return model


def as_csr(model: nn.Module) -> nn.Module:
    """A copy whose ungrouped convolutions are CSR products."""
    twin = copy.deepcopy(model)
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and child.groups == 1 and child.bias is None:
                setattr(parent, name, torch.jit.script(CsrConv(child)))
    return twin


def write_onnx(model: nn.Module, shape: tuple[int, int, int], path: Path) -> None:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (torch.rand(2, *shape),), path, dynamo=True, opset_version=18, external_data=False,
            input_names=["images"], output_names=["logits"], dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            verbose=False,
        )  # fmt: skip


def quantize(path: Path, batches: Sequence[np.ndarray], target: Path) -> None:
    """Write a network as ONNX Runtime quantises it, with ranges from these images."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter([{"images": batch} for batch in batches])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared), str(target), Images(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip


def session(path: Path, threads: int) -> Infer:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    made = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda images: made.run(None, {"images": images})[0]


def torch_infer(model: nn.Module, threads: int) -> Infer:
    def infer(images: np.ndarray) -> np.ndarray:
        torch.set_num_threads(threads)
        with torch.no_grad():
            logits: np.ndarray = model(torch.from_numpy(images)).numpy()
        return logits

    return infer


def engines(folder: Path, model: nn.Module, threads: int) -> dict[str, Infer]:
    """One function for each engine, ready to be timed."""
    ours = Network(compile_library(folder), folder / "weights.bin", threads=threads)
    return {
        "onnxruntime fp32": session(folder / "model.onnx", threads),
        "onnxruntime int8": session(folder / "int8.onnx", threads),
        "torch eager": torch_infer(model, threads),
        "torch csr": torch_infer(as_csr(model), threads),
        **other_engines(folder, threads),
        "sparse engine": ours.infer,
    }


@contextlib.contextmanager
def one_core(threads: int) -> Iterator[None]:
    """Keeps a single thread on its core, where the system can: one that is moved finds cold caches there."""
    if threads > 1 or not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def interleaved(functions: dict[str, Infer], images: np.ndarray, *, seconds: float) -> dict[str, list[float]]:
    """Milliseconds of each call; engines take turns of 20 ms, after WARM_MS that bring back caches and threads."""
    found: dict[str, list[float]] = {name: [] for name in functions}
    stop = time.perf_counter() + seconds
    while time.perf_counter() < stop or min(map(len, found.values())) < 3:
        for name, infer in functions.items():
            turn = time.perf_counter_ns()
            while time.perf_counter_ns() < turn + 1e6 * WARM_MS:
                infer(images)
            turn = time.perf_counter_ns()
            while True:
                start = time.perf_counter_ns()
                infer(images)
                end = time.perf_counter_ns()
                found[name].append((end - start) / 1e6)
                if end - turn > 20e6:
                    break
    return found


def summary(samples: dict[str, list[float]]) -> dict[str, Any]:
    """Medians in milliseconds, and how many times faster than the baseline."""
    medians = {name: statistics.median(values) for name, values in samples.items()}
    return {
        "ms": {name: round(value, 4) for name, value in medians.items()},
        "min_ms": {name: round(min(values), 4) for name, values in samples.items()},
        "speedup": {name: round(medians[BASELINE] / value, 3) for name, value in medians.items()},
        "n": {name: len(values) for name, values in samples.items()},
    }


def profile(folder: Path, export: NativeExport, limits: dict[str, float], rounds: int = 30) -> list[dict[str, Any]]:
    """Time of each operator in microseconds; of weighted layers beside what arithmetic and weights alone would take."""
    library = folder / "profile.so"
    subprocess.run(["cc", *FLAGS, "-DRE_PROFILE", str(folder / "model.c"), "-o", str(library), "-lm"], check=True)
    times = operator_times(library, folder / "weights.bin", export, rounds)
    functions_of = operators((folder / "model.c").read_text(encoding="utf-8"))
    rows = []
    for index in range(1, len(times)):
        layers = [layer for layer in export.layers if layer.operator_index == index]
        found = weighted_row(layers, times[index], limits) if layers else {"name": "", "us": round(times[index], 2)}
        rows.append({**found, "kernel": layers[0].kernel if len(layers) == 1 else functions_of[index]})
    return rows


def operator_times(library: Path, weights: Path, export: NativeExport, rounds: int) -> np.ndarray[Any, Any]:
    """Median microseconds of each operator of a library that was compiled with RE_PROFILE, for one random image."""
    made, functions = Network(library, weights), ctypes.CDLL(str(library))
    count = ctypes.c_int.in_dll(functions, "re_profile_operators").value
    spent = (ctypes.c_double * count).in_dll(functions, "re_profile_ns")
    image, rows = np.random.default_rng(0).random((1, *export.input_shape), dtype=np.float32), []
    for _ in range(rounds):
        ctypes.memset(spent, 0, ctypes.sizeof(spent))
        made.infer(image)
        rows.append(list(spent))
    made.close()
    times: np.ndarray[Any, Any] = np.median(np.array(rows), axis=0) / 1e3
    return times


def operators(code: str) -> list[str]:
    """The C function of each operator of a generated network, in the order in which they run."""
    body = code.split("static void network(")[1]
    return [re.findall(r"(\w+)\(j, &", part)[0] for part in body.split("end_operator(")[:-1]]


def weighted_row(layers: list[LayerReport], us: float, limits: dict[str, float]) -> dict[str, Any]:
    """The time of layers that are computed together, beside their limits, in microseconds.

    `share` is the part of the time that arithmetic would take.
    """
    macs, nonzeros = sum(layer.macs for layer in layers), sum(layer.nonzeros for layer in layers)
    arithmetic = macs / limits["mac_per_ns"] / 1e3
    return {
        "name": " and ".join(layer.name for layer in layers),
        "keep": round(nonzeros / sum(layer.weights for layer in layers), 4),
        "us": round(us, 2),
        "arithmetic_us": round(arithmetic, 2),
        "loads_us": round(macs / limits["loaded_mac_per_ns"] / 1e3, 2),
        "weights_us": round(6 * nonzeros / limits["read_bytes_per_ns"] / 1e3, 2),
        "share": round(arithmetic / us, 3) if us else None,
    }


def first_inference(folder: Path, library: Path, shape: tuple[int, int, int]) -> float:
    """Milliseconds from reading the weights to the first logits."""
    image = np.zeros((1, *shape), np.float32)
    start = time.perf_counter_ns()
    made = Network(library, folder / "weights.bin")
    made.infer(image)
    elapsed = (time.perf_counter_ns() - start) / 1e6
    made.close()
    return elapsed


def cell(name: str, keep: float, scope: str, choice: argparse.Namespace) -> dict[str, Any]:
    """All measurements of one network at one keep, and the limits of the machine, which may be moved between two."""
    limits = machine_limits()
    model, shape = network(name, keep, scope), shape_of(name)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_onnx(model, shape, folder / "model.onnx")
        batches = [np.random.default_rng(i).random((4, *shape), dtype=np.float32) for i in range(4)]
        quantize(folder / "model.onnx", batches, folder / "int8.onnx")
        export = export_native(folder / "model.onnx", folder)
        library = compile_library(folder)
        results = []
        for threads in choice.threads:
            functions = engines(folder, model, threads)
            for images in choice.images:
                if keep > CSR_KEEP or images > 1 or name in LARGE:
                    functions.pop("torch csr", None)
                batch = np.random.default_rng(1).random((images, *shape), dtype=np.float32)
                exact, got = functions[BASELINE](batch), functions[OURS](batch)
                assert np.abs(exact - got).max() <= 1e-4 * np.abs(exact).max(), "what is timed must be right"
                with one_core(threads):
                    timed = summary(interleaved(functions, batch, seconds=choice.seconds))
                results.append({"threads": threads, "images": images, **timed})
                print(
                    name, f"keep {keep:g} ({scope}), {threads} threads, {images} images:", timed["speedup"], flush=True
                )
        return {
            "network": name,
            "keep": keep,
            "scope": scope,
            "macs_left": export.macs / sum(layer.dense_macs for layer in export.layers),
            "nonzeros": export.nonzeros,
            "bytes_per_nonzero": export.weights_bytes / export.nonzeros,
            "code_bytes": library.stat().st_size,
            "memory_bytes": export.memory_bytes,
            "first_inference_ms": first_inference(folder, library, shape),
            "layers": profile(folder, export, limits),
            "results": results,
            "environment": environment(),
            "limits": limits,
        }


def replaced(cells: list[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells with a new one in the place of an older one of the same network, fraction and scope, or at the end."""
    keys = [(cell["network"], cell["keep"], cell["scope"]) for cell in (*cells, new)]
    at = keys.index(keys[-1])
    return [*cells[:at], new, *cells[at + 1 :]]


def environment() -> dict[str, Any]:
    """Where and of what the numbers were made."""
    compiler = subprocess.run(["cc", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    return {
        **provenance(shlex.join(["python", "benchmarks/sparse_engine.py", *sys.argv[1:]]), *timed_packages()),
        "instructions": [f for f in ("avx2", "avx512f", "avx512_vnni", "amx_int8", "asimd") if f in flags],
        "load_average": os.getloadavg()[0],
        "compiler": compiler,
    }


def timed_packages() -> list[str]:
    """The packages of the engines that are timed."""
    return ["torch", "onnxruntime", *(["openvino"] if has_openvino() else [])]


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The description as it is, and the default of each option that has a help text."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--networks", nargs="+", default=tuple(SMALL), choices=NETWORKS, help="to time")
    parser.add_argument("--scope", nargs="+", default=SCOPES, choices=SCOPES, help="global: at 10%% kept only")
    parser.add_argument(
        "--keep", nargs="+", type=fraction, default=KEEPS, help="fractions of the weights: 0.1 for 10%%"
    )
    parser.add_argument("--images", nargs="+", type=at_least_one, default=(1, 100), help="of one inference")
    parser.add_argument("--threads", nargs="+", type=at_least_one, default=(1, 2), help="of each engine")
    parser.add_argument("--seconds", type=seconds, default=4.0, help="of each interleaved measurement")
    out = RESULTS / "sparse_engine.json"
    parser.add_argument("--out", type=Path, default=out, help="read first, and written after each cell")
    parser.add_argument("--plot", type=Path, help="file of the figure")
    parser.add_argument("--tables", type=Path, metavar="JSON", help="only the tables and the plot of an earlier file")
    choice = parser.parse_args()
    for path in (choice.out, choice.plot or choice.out):
        if not path.parent.is_dir():
            parser.error(f"{path} cannot be written: there is no folder {path.parent}")
    if choice.tables and not choice.tables.is_file():
        parser.error(f"--tables {choice.tables}: there is no such file")
    return choice


def main() -> None:
    choice = arguments()
    if choice.tables:
        stored = json.loads(choice.tables.read_text(encoding="utf-8"))
        show(stored)
        if choice.plot:
            plot(stored, choice.plot)
        return
    warnings.simplefilter("ignore")  # PyTorch's sparse CSR and TorchScript announce themselves
    report = json.loads(choice.out.read_text(encoding="utf-8")) if choice.out.exists() else {"cells": []}
    for name in choice.networks:
        wanted = [(keep, scope) for scope in choice.scope for keep in choice.keep if scope == "layer" or keep == 0.1]
        for keep, scope in wanted:
            report["cells"] = replaced(report["cells"], cell(name, keep, scope, choice))
            write_result(choice.out, report)
    if choice.plot:
        plot(report, choice.plot)
    show(report)


if __name__ == "__main__":
    main()
