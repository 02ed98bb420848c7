"""ONNX for CPUs: its row of the table of formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from robust_edge_exporters.artifact import Contents, ExportedArtifact, ExportSettings
from robust_edge_exporters.format_option import OptionValue
from robust_edge_exporters.formats.format import DenseBaseline, Format
from robust_edge_exporters.formats.onnx.contents import contents_of
from robust_edge_exporters.formats.onnx.dense import filled
from robust_edge_exporters.formats.onnx.differences import onnx_differences
from robust_edge_exporters.formats.onnx.options import INT8_SKIP
from robust_edge_exporters.target import Target
from robust_edge_runtimes.core.bundle import Bundle


class OnnxFormat(Format):
    """`model.onnx`, for ONNX Runtime."""

    needs = "numpy and onnxruntime"

    def export(
        self, model: nn.Module, shape: tuple[int, ...], target: Target, folder: str, settings: ExportSettings
    ) -> ExportedArtifact:
        """Write `model.onnx`."""
        from robust_edge_exporters.formats.onnx.export import export_onnx  # imports torch.onnx, half a second

        return export_onnx(model, shape, target, folder, settings)

    def check_options(
        self, model: nn.Module, shape: tuple[int, ...], target: Target, options: Mapping[str, OptionValue]
    ) -> None:
        """Refuse a pattern of `int8_skip` that matches no layer."""
        if options.get(INT8_SKIP.name):
            from robust_edge_exporters.formats.onnx.export import converted  # imports torch.onnx, half a second
            from robust_edge_exporters.formats.onnx.int8 import check_skipped

            check_skipped(converted(model, shape, target), str(options[INT8_SKIP.name]))

    def contents(self, bundle: Bundle) -> Contents:
        """Read back from `model.onnx`."""
        return contents_of(bundle.artifact_path)

    def dense_baseline(self, bundle: Bundle, folder: Path) -> DenseBaseline:
        """The same file, its zeros filled by small random values."""
        return DenseBaseline(filled(bundle, folder), "dense weights")

    def file_differences(self, built: Path, shipped: Path) -> list[str]:
        """Operators and tensors of `model.onnx`."""
        compare = onnx_differences if built.suffix == ".onnx" else super().file_differences
        return compare(built, shipped)
