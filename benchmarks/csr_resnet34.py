"""How fast is the sparse-CSR TorchScript of a ResNet34 that keeps 10% of its weights, against dense eager PyTorch?

    python benchmarks/csr_resnet34.py [-o benchmarks/results/csr_resnet34.json]

Random weights, CIFAR stem, 10% kept in every layer, one thread. Each layer is CSR or dense, whichever the exporter
found faster; both networks are timed in turn, so that the ratio holds on a machine whose speed drifts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from result_file import RESULTS, provenance, write_result
from torch import Tensor, nn

from robust_edge.models import ModelSpec, build_model
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge_exporters.artifact import ExportSettings
from robust_edge_exporters.formats.csr.export import export_csr
from robust_edge_exporters.target import target_named

SHAPE, KEEP = (3, 32, 32), 0.1
REPEATS = {1: 30, 100: 5}


def sparse_resnet34() -> nn.Module:
    torch.manual_seed(0)
    classes = tuple("0123456789")
    model = build_model(ModelSpec(arch="resnet34", shape=SHAPE, classes=classes, mean=(0.5,) * 3, std=(0.25,) * 3))
    with torch.no_grad():
        for weight in prunable_parameters(model).values():
            least = weight.abs().flatten().kthvalue(round((1 - KEEP) * weight.numel())).values
            weight[weight.abs() <= least] = 0
    return model.eval()


def interleaved(networks: Sequence[nn.Module], images: Tensor) -> list[float]:
    """Median seconds of each network on `images`, called in turn."""
    samples: list[list[float]] = [[] for _ in networks]
    for network in networks:
        network(images)
    for _ in range(REPEATS[len(images)]):
        for network, times in zip(networks, samples, strict=True):
            start = time.perf_counter()
            network(images)
            times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in samples]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=RESULTS / "csr_resnet34.json")
    out = parser.parse_args().out
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # TorchScript's deprecation, CSR's beta
    dense = sparse_resnet34()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        exported = export_csr(dense, SHAPE, target_named("x86-cpu-csr"), folder, ExportSettings())
        path = Path(folder) / exported.file
        size, sparse = path.stat().st_size, torch.jit.load(str(path)).eval()
        times = {}
        for count in REPEATS:
            images = torch.rand(count, *SHAPE)
            error = float((sparse(images) - dense(images)).abs().max() / dense(images).abs().max())
            eager, csr = interleaved([dense, sparse], images)
            times[count] = {
                "dense_eager_ms": round(1e3 * eager, 2),
                "csr_ms": round(1e3 * csr, 2),
                "dense_over_csr": round(eager / csr, 3),
                "n": REPEATS[count],
                "max_logit_error": error,
            }
    result = {
        **provenance("python benchmarks/csr_resnet34.py", "torch"),
        "threads": 1,
        "keep": exported.sparsity.keep,
        "file_bytes": size,
        "dense_bytes": 4 * exported.sparsity.weights,
        "file_over_dense": round(size / (4 * exported.sparsity.weights), 3),
        "csr_layers": sum(layer.form == "csr" for layer in exported.layers),
        "layers": len(exported.layers),
        "images": times,
    }
    write_result(out, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
