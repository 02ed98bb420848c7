"""Sparse-CSR TorchScript: its row of the table of formats."""

from __future__ import annotations

from torch import nn

from robust_edge_exporters.artifact import ExportedArtifact, ExportSettings
from robust_edge_exporters.formats.csr.export import export_csr
from robust_edge_exporters.formats.format import Format
from robust_edge_exporters.target import Target


class CsrFormat(Format):
    """`model.ts`, for PyTorch."""

    needs = "numpy and torch"
    takes_fixed_batch = False
    takes_csr_threshold = True

    def export(
        self, model: nn.Module, shape: tuple[int, ...], target: Target, folder: str, settings: ExportSettings
    ) -> ExportedArtifact:
        """Write `model.ts`."""
        return export_csr(model, shape, target, folder, settings)
