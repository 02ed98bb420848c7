"""An ONNX bundle without zeros of the network that a native bundle was generated from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import onnx

from robust_edge_exporters.formats.onnx.dense import write_dense_bundle
from robust_edge_exporters.formats.onnx.export import FILE
from robust_edge_exporters.formats.onnx.without_weights import GRAPH, with_random_weights
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.manifest import Artifact


def dense_onnx(bundle: Bundle, folder: Path) -> Bundle:
    """Write the ONNX file that the C was generated from, with random weights, as a bundle.

    Raises:
        InputError: the bundle was written without its graph.
    """
    if GRAPH not in bundle.manifest.files:
        raise InputError(f"{bundle.path} has no {GRAPH} to make a dense network of; give a dense bundle beside it")
    program = with_random_weights(onnx.load(str(bundle.path / GRAPH), load_external_data=False))
    opset = next(item.version for item in program.opset_import if item.domain in ("", "ai.onnx"))
    manifest = dataclasses.replace(
        bundle.manifest,
        target=target_named(bundle.manifest.target).made_from or bundle.manifest.target,
        artifact=Artifact(FILE, "onnx", "fp32", "", 0, opset, program.ir_version),
        layers=(),
        size=None,
        parity=None,
        notes=(),
    )
    return write_dense_bundle(program, bundle, manifest, folder)
