"""The sparse engine's C: its row of the table of formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from robust_edge_exporters.artifact import Contents, ExportedArtifact, ExportSettings
from robust_edge_exporters.format_option import OptionValue
from robust_edge_exporters.formats.format import DenseBaseline, Format
from robust_edge_exporters.formats.native.contents import contents_of
from robust_edge_exporters.formats.native.dense import dense_onnx
from robust_edge_exporters.formats.native.export import export_native_artifact
from robust_edge_exporters.formats.native.integers import recorded_ranges
from robust_edge_exporters.formats.native.options import SYMBOL_PREFIX
from robust_edge_exporters.formats.onnx.differences import onnx_differences
from robust_edge_exporters.native.c_source import check_prefix
from robust_edge_exporters.standalone import standalone
from robust_edge_exporters.target import Target
from robust_edge_runtimes.core.bundle import Bundle


class NativeFormat(Format):
    """`model.c` and `weights.bin`, for any C compiler."""

    needs = "numpy and a C compiler (none on the kind of machine that exported it)"
    device_rounds = False

    def export(
        self, model: nn.Module, shape: tuple[int, ...], target: Target, folder: str, settings: ExportSettings
    ) -> ExportedArtifact:
        """Write `model.c` and its companions."""
        return export_native_artifact(model, shape, target, folder, settings)

    def check_options(
        self, model: nn.Module, shape: tuple[int, ...], target: Target, options: Mapping[str, OptionValue]
    ) -> None:
        """Refuse a prefix that gives functions names which are taken."""
        check_prefix(str(options.get(SYMBOL_PREFIX.name) or SYMBOL_PREFIX.default))

    def channel_block(self, precision: str) -> int:
        """Integer dot products take four channels at once."""
        return 4 if precision == "int8" else 1

    def contents(self, bundle: Bundle) -> Contents:
        """Read back from `weights.bin`, where the tables of `model.c` say that the values lie."""
        return contents_of(bundle)

    def dense_baseline(self, bundle: Bundle, folder: Path) -> DenseBaseline:
        """The ONNX file that the C was generated from, with random weights."""
        return DenseBaseline(dense_onnx(bundle, folder), "dense fp32 weights, ONNX Runtime")

    def file_differences(self, built: Path, shipped: Path) -> list[str]:
        """Source and weights byte by byte; operators and tensors of the graph, which only the dense baseline reads."""
        compare = onnx_differences if built.suffix == ".onnx" else super().file_differences
        return compare(built, shipped)

    def ranges(self, folder: Path) -> Mapping[str, tuple[float, float]] | None:
        """Those of the graph without weights, from which all integers follow."""
        return recorded_ranges(folder)

    def extra_files(self) -> dict[str, str]:
        """The script that compiles the C and calls it."""
        return {"engine.py": standalone("robust_edge_runtimes.formats.native.engine")}
