"""Artifact format to exporter, resolved only when it is asked for."""

from __future__ import annotations

import importlib
from typing import Protocol

from torch import nn

from robust_edge_exporters.artifact import ExportedArtifact, ExportSettings
from robust_edge_exporters.target import Target
from robust_edge_runtimes.core.errors import unknown_name


class Exporter(Protocol):
    """Writes one artifact format."""

    def __call__(
        self, model: nn.Module, shape: tuple[int, ...], target: Target, folder: str, settings: ExportSettings
    ) -> ExportedArtifact:
        """Write the artifact for `target` into `folder` and say what was written."""


EXPORTERS = {
    "csr": "robust_edge_exporters.formats.csr.export:export_csr",
    "native": "robust_edge_exporters.formats.native.export:export_native_artifact",
    "onnx": "robust_edge_exporters.formats.onnx.export:export_onnx",
    "onnx-cuda": "robust_edge_exporters.formats.onnx.export:export_onnx",
    "tensorrt": "robust_edge_exporters.formats.tensorrt.export:export_tensorrt",
}


def exporter(artifact_format: str) -> Exporter:
    """The function that writes an artifact format."""
    if artifact_format not in EXPORTERS:
        raise unknown_name("artifact format", artifact_format, EXPORTERS)
    module, name = EXPORTERS[artifact_format].split(":")
    found: Exporter = getattr(importlib.import_module(module), name)
    return found
