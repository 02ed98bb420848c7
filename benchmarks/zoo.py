"""Networks of random weights as bundles, for benchmarks that are about speed or conversion and not about accuracy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from robust_edge.models import ModelSpec, Normalized, build_model
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge_exporters.bundle import Exported, ExportRequest, export_bundle
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.golden import Golden
from robust_edge_runtimes.core.manifest import AttackSpec, Expected, LayerCount, Source, Sparsity

SHAPES = {"small_cnn": (1, 8, 8), "mobilenet_v2": (3, 32, 32), "resnet18": (3, 32, 32), "resnet34": (3, 32, 32)}
EPS, KEEP, IMAGES = 0.05, 0.1, 32


def random_network(arch: str) -> tuple[Normalized, ModelSpec]:
    """The network with the smallest weights of every layer set to zero."""
    torch.manual_seed(0)
    channels = SHAPES[arch][0]
    classes = tuple("0123456789")
    spec = ModelSpec(arch=arch, shape=SHAPES[arch], classes=classes, mean=(0.5,) * channels, std=(0.25,) * channels)
    model = build_model(spec)
    with torch.no_grad():
        for weight in prunable_parameters(model).values():
            zeros = round((1 - KEEP) * weight.numel())
            weight.view(-1)[weight.abs().flatten().argsort()[:zeros]] = 0
    return model.eval().requires_grad_(False), spec


def request_of(arch: str, target: str) -> ExportRequest:
    """An export whose golden logits are the network's own; labels are its classes, so that it is always right."""
    model, spec = random_network(arch)
    random = np.random.default_rng(0)
    clean = random.uniform(0.1, 0.9, (IMAGES, *spec.shape)).astype(np.float32)
    attacked = (clean + random.uniform(-EPS, EPS, clean.shape)).astype(np.float32)
    clean_logits, attacked_logits = (model(torch.from_numpy(x)).numpy() for x in (clean, attacked))
    labels = clean_logits.argmax(1).astype(np.int64)
    weights = prunable_parameters(model)
    layers = tuple(LayerCount(name, w.numel(), int((w != 0).sum())) for name, w in weights.items())
    counts = Sparsity.of_layers(layers)
    robust = float((attacked_logits.argmax(1) == labels).mean())
    return ExportRequest(
        model=model,
        shape=spec.shape,
        classes=spec.classes,
        sparsity=counts,
        source=Source(f"random {arch}", "0" * 64, arch, "noise", "0" * 64, {"torch": torch.__version__}),
        expected=Expected(IMAGES, 1.0, robust, AttackSpec("noise", EPS, 1, EPS, 0)),
        golden=Golden(clean, attacked, labels, clean_logits, attacked_logits, 1e-4),
        target=target_named(target),
        calibration=clean,
    )


def random_bundle(arch: str, target: str, folder: Path) -> Exported:
    """Export a random network to a target."""
    return export_bundle(request_of(arch, target), folder)
