"""An ONNX bundle of the same network without zeros."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from robust_edge_exporters.formats.onnx.weights import count_nonzeros, weights_of
from robust_edge_runtimes.core.bundle import Bundle, open_bundle, seal
from robust_edge_runtimes.core.golden import GOLDEN, MAX_TOLERANCE, Golden, expected_of, write_golden
from robust_edge_runtimes.core.manifest import Manifest
from robust_edge_runtimes.load import load


def filled(bundle: Bundle, folder: Path) -> Bundle:
    """Copy the bundle's file and replace every zero weight by a small random value."""
    program = onnx.load(str(bundle.artifact_path))
    weighted = weights_of(program)
    generator = np.random.default_rng(0)
    for item in program.graph.initializer:
        if item.name in weighted:
            item.CopyFrom(numpy_helper.from_array(_without_zeros(numpy_helper.to_array(item), generator), item.name))
    return write_dense_bundle(program, bundle, bundle.manifest, folder)


def write_dense_bundle(program: Any, bundle: Bundle, manifest: Manifest, folder: Path) -> Bundle:
    """Write a dense network as a bundle of its own.

    Args:
        program: the network.
        bundle: the sparse bundle, whose golden images are copied.
        manifest: the manifest of the new bundle; sparsity and accuracies are computed here.
        folder: where to write.
    """
    onnx.save(program, str(folder / manifest.artifact.file))
    golden = bundle.golden()
    tolerance = min(golden.tolerance, MAX_TOLERANCE[manifest.artifact.precision])
    own = None if golden.artifact_tolerance is None else min(golden.artifact_tolerance, tolerance)
    write_golden(folder / GOLDEN, dataclasses.replace(golden, tolerance=tolerance, artifact_tolerance=own))
    manifest = seal(folder, dataclasses.replace(manifest, sparsity=count_nonzeros(program)))
    golden = _with_own_logits(Bundle(folder, manifest))
    write_golden(folder / GOLDEN, golden)
    seal(folder, dataclasses.replace(manifest, expected=expected_of(golden, manifest.expected.attack)))
    return open_bundle(folder)


def _with_own_logits(dense: Bundle) -> Golden:
    """Replace the stored logits, which are those of the sparse network, by the dense network's."""
    golden = dense.golden()
    with load(dense) as model:
        clean, attacked = model.infer_all(golden.clean), model.infer_all(golden.attacked)
    return dataclasses.replace(
        golden,
        clean_logits=clean,
        attacked_logits=attacked,
        artifact_clean_logits=clean,
        artifact_attacked_logits=attacked,
        artifact_tolerance=golden.tolerance,
    )


def _without_zeros(weight: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    if weight.dtype == np.int8:
        return np.where(weight == 0, np.int8(1), weight)
    scale = float(np.abs(weight).mean()) or 1e-3
    noise = generator.uniform(0.01, 0.1, weight.shape) * scale
    return np.where(weight == 0, noise, weight).astype(weight.dtype)
