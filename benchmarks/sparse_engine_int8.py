"""Times the int8 sparse engine against ONNX Runtime and the fp32 sparse engine: one thread, one image.

    python benchmarks/sparse_engine_int8.py --networks resnet18-224 --keep 0.1     # a cell takes a minute or two

Weights are random; scheme `block` with scope "layer" keeps a fraction of whole blocks of four input channels in every
layer, and the first layer and depthwise ones stay dense. All engines are timed in turns, so that a noisy minute hits
all of them; medians and ratios of medians are reported. ONNX Runtime int8 is its static QDQ quantisation, per channel,
uint8 activations. The int8 engine is timed twice where the CPU has VNNI, compiled with it and without; ONNX Runtime
uses VNNI in both cases, so that the second ratio is too small for a CPU that has none.

Cells of networks and fractions that were not asked for stay in the result file, each with the machine and the commit
that it was made on.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from argument_types import fraction, seconds
from other_engines import Infer
from result_file import RESULTS, provenance, write_result
from sparse_engine import interleaved, one_core, operator_times, quantize, session

import robust_edge_exporters.native
from robust_edge.models import ModelSpec, build_model
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge.pruning.schemes.block import Block
from robust_edge_exporters.native import NativeExport, export_native
from robust_edge_runtimes.formats.native.engine import FLAGS, Network

NETWORKS = {
    "resnet34": ("resnet34", 32),
    "mobilenet_v2": ("mobilenet_v2", 32),
    "resnet18-224": ("torchvision/resnet18", 224),
    "resnet50-224": ("torchvision/resnet50", 224),
    "mobilenet_v2-224": ("torchvision/mobilenet_v2", 224),
}
"""Architecture, and height and width of an image, by name."""
KEEPS = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
LAYERS_KEEP = 0.1  # of the cells that list their layers
CALIBRATION = 16  # images
OUT = RESULTS / "sparse_engine_int8.json"
WITHOUT_VNNI = ("-mno-avx512vnni", "-mno-avxvnni")
CSRC = Path(robust_edge_exporters.native.__file__).with_name("csrc")


def network(name: str, keep: float) -> torch.nn.Module:
    """The network with random weights, a fraction `keep` of each layer's left, in whole blocks."""
    torch.manual_seed(0)
    arch, size = NETWORKS[name]
    spec = ModelSpec(arch=arch, shape=(3, size, size), classes=tuple("0123456789"), mean=(0.5,) * 3, std=(0.25,) * 3)
    model = build_model(spec).eval()
    if keep < 1:
        weights = prunable_parameters(model)
        pruned = Block(scope="layer").build(model, spec.shape, keep).project(weights, keep)
        with torch.no_grad():
            for layer, weight in weights.items():
                weight.copy_(pruned[layer])
    return model


def write_onnx(model: torch.nn.Module, images: np.ndarray, path: Path) -> None:
    """Write the network in fp32."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (torch.from_numpy(images[:2]),), path, dynamo=True, opset_version=18, external_data=False,
            input_names=["images"], output_names=["logits"], dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            verbose=False,
        )  # fmt: skip


def has_vnni() -> bool:
    """Whether this CPU multiplies four codes in one instruction."""
    return bool({"avx512_vnni", "avx_vnni"} & set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split()))


def compiled(folder: Path, name: str, *flags: str) -> Path:
    """A library of the network in a folder."""
    library = folder / f"{name}.so"
    subprocess.run(["cc", *FLAGS, *flags, str(folder / "model.c"), "-o", str(library), "-lm"], check=True)
    return library


def engines(folder: Path) -> dict[str, Infer]:
    """One function for each engine, ready to be timed."""

    def ours(part: str, name: str, *flags: str) -> Infer:
        return Network(compiled(folder / part, name, *flags), folder / part / "weights.bin", threads=1).infer

    found = {
        "onnxruntime fp32": session(folder / "model.onnx", 1),
        "onnxruntime int8": session(folder / "int8.onnx", 1),
        "sparse fp32": ours("fp32", "engine"),
        "sparse int8": ours("int8", "engine"),
    }
    return found | ({"sparse int8 without VNNI": ours("int8", "plain", *WITHOUT_VNNI)} if has_vnni() else {})


def limits() -> dict[str, float]:
    """Multiply-adds per ns of one core; see int8_limits.c."""
    with tempfile.TemporaryDirectory() as folder:
        program, source = Path(folder) / "limits", Path(__file__).with_name("int8_limits.c")
        flags = ["-std=c99", "-O3", "-march=native", "-funroll-loops", f"-I{CSRC}"]
        subprocess.run(["cc", *flags, str(source), "-o", str(program)], check=True)
        text = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    return dict(zip(("mac_per_ns", "loaded_mac_per_ns"), map(float, text.split()), strict=True))


def layers(folder: Path, export: NativeExport, rates: dict[str, float], rounds: int = 30) -> list[dict[str, Any]]:
    """Time of each weighted layer in µs, beside what products alone would take from registers and with loads."""
    library = compiled(folder, "profile", "-DRE_PROFILE")
    times = operator_times(library, folder / "weights.bin", export, rounds)
    return [
        {
            "name": layer.name,
            "kernel": layer.kernel,
            "us": round(times[layer.operator_index], 2),
            "arithmetic_us": round(layer.macs / rates["mac_per_ns"] / 1e3, 2),
            "loads_us": round(layer.macs / rates["loaded_mac_per_ns"] / 1e3, 2),
        }
        for layer in export.layers
    ]


def cell(name: str, keep: float, timed_for: float, rates: dict[str, float]) -> dict[str, Any]:
    """All measurements of one network at one keep."""
    size = NETWORKS[name][1]
    images = np.random.default_rng(1).random((CALIBRATION, 3, size, size), dtype=np.float32)
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        write_onnx(network(name, keep), images, folder / "model.onnx")
        quantize(folder / "model.onnx", np.split(images, 4), folder / "int8.onnx")
        fp32 = export_native(folder / "model.onnx", folder / "fp32")
        int8 = export_native(folder / "model.onnx", folder / "int8", weights="int8", calibration=images)
        functions = engines(folder)
        exact, got = (functions[engine](images[:1]) for engine in ("onnxruntime fp32", "sparse fp32"))
        assert np.abs(exact - got).max() <= 1e-4 * np.abs(exact).max(), "what is timed must be right"
        logits = [infer(images[:1]) for engine, infer in functions.items() if engine.startswith("sparse int8")]
        assert all(np.array_equal(logits[0], other) for other in logits), "all instruction sets compute the same"
        with one_core(1):
            samples = interleaved(functions, images[:1], seconds=timed_for)
        medians = {engine: statistics.median(values) for engine, values in samples.items()}
        return {
            "network": name,
            "keep": keep,
            "ms": {engine: round(value, 4) for engine, value in medians.items()},
            "min_ms": {engine: round(min(values), 4) for engine, values in samples.items()},
            "n": min(map(len, samples.values())),
            "load_average": round(os.getloadavg()[0], 2),
            "macs_left": round(int8.macs / sum(layer.dense_macs for layer in int8.layers), 4),
            "weights_bytes": int8.weights_bytes,
            "bytes_per_nonzero": round(int8.weights_bytes / int8.nonzeros, 3),
            "memory_bytes": {"sparse fp32": fp32.memory_bytes, "sparse int8": int8.memory_bytes},
            **({"layers": layers(folder / "int8", int8, rates)} if keep == LAYERS_KEEP else {}),
            "environment": {
                **provenance(shlex.join(["python", "benchmarks/sparse_engine_int8.py", *sys.argv[1:]]), "onnxruntime"),
                "instructions": [f for f in ("avx2", "avx512f", "avx512_vnni", "avx_vnni") if f in instructions()],
                "limits": rates,
            },
        }


def instructions() -> set[str]:
    """What the CPU says that it has."""
    return set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())


def replaced(cells: list[dict[str, Any]], new: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells with a new one, in the order of networks and fractions."""
    key = ("network", "keep")
    others = [old for old in cells if any(old[k] != new[k] for k in key)]
    return sorted([*others, new], key=lambda c: (list(NETWORKS).index(c["network"]), -c["keep"]))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument(
        "--keep", nargs="+", type=fraction, default=KEEPS, help="fractions of the weights: 0.1 for 10%%"
    )
    parser.add_argument("--seconds", type=seconds, default=4.0, help="of each interleaved measurement")
    parser.add_argument("--out", type=Path, default=OUT, help="read first, and written after each cell")
    return parser.parse_args()


def main() -> None:
    choice = arguments()
    torch.set_num_threads(1)
    rates = limits()
    cells = json.loads(choice.out.read_text(encoding="utf-8"))["cells"] if choice.out.exists() else []
    for name in choice.networks:
        for keep in choice.keep:
            found = cell(name, keep, choice.seconds, rates)
            cells = replaced(cells, found)
            write_result(choice.out, {"cells": cells})
            ours = found["ms"]["sparse int8"]
            print(name, keep, {engine: round(ms / ours, 2) for engine, ms in found["ms"].items()}, f"{ours:.3f} ms")


if __name__ == "__main__":
    main()
