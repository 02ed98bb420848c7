"""Sparse-CSR TorchScript: its row of the table of formats."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from robust_edge_exporters.artifact import Contents, ExportedArtifact, ExportSettings
from robust_edge_exporters.formats.csr.differences import csr_differences
from robust_edge_exporters.formats.csr.export import FILE, contents_of, export_csr
from robust_edge_exporters.formats.format import Format
from robust_edge_exporters.target import Target
from robust_edge_runtimes.core.bundle import Bundle


class CsrFormat(Format):
    """`model.ts`, for PyTorch."""

    needs = "numpy and torch"
    takes_fixed_batch = False

    def export(
        self, model: nn.Module, shape: tuple[int, ...], target: Target, folder: str, settings: ExportSettings
    ) -> ExportedArtifact:
        """Write `model.ts`."""
        return export_csr(model, shape, target, folder, settings)

    def file_differences(self, built: Path, shipped: Path) -> list[str]:
        """Code and tensors of `model.ts`."""
        compare = csr_differences if built.name == FILE else super().file_differences
        return compare(built, shipped)

    def contents(self, bundle: Bundle) -> Contents:
        """Read back from `model.ts`."""
        return contents_of(bundle)
