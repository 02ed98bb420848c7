"""TensorRT: its row of the table of formats."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from robust_edge_exporters.artifact import Contents, ExportedArtifact, ExportSettings
from robust_edge_exporters.format_option import OptionValue
from robust_edge_exporters.formats.format import Format
from robust_edge_exporters.formats.onnx.contents import contents_of
from robust_edge_exporters.formats.onnx.differences import onnx_differences
from robust_edge_exporters.formats.onnx.options import INT8_SKIP
from robust_edge_exporters.formats.tensorrt.differences import calibration_differences
from robust_edge_exporters.formats.tensorrt.export import CALIBRATION, export_tensorrt
from robust_edge_exporters.standalone import standalone
from robust_edge_exporters.target import Target
from robust_edge_runtimes.core.bundle import Bundle

BUILD = "python3 build_engine.py    # minutes, once per device; run.py would do it at first use"


class TensorRtFormat(Format):
    """`model.onnx` and the recipe of an engine."""

    needs = "numpy and TensorRT"
    sparse_tensor_cores = True

    def export(
        self, model: nn.Module, shape: tuple[int, ...], target: Target, folder: str, settings: ExportSettings
    ) -> ExportedArtifact:
        """Write `model.onnx`, the recipe, and the script that builds the engine with trtexec."""
        return export_tensorrt(model, shape, target, folder, settings)

    def check_options(
        self, model: nn.Module, shape: tuple[int, ...], target: Target, options: Mapping[str, OptionValue]
    ) -> None:
        """Refuse a pattern of `int8_skip` that matches no layer."""
        if options.get(INT8_SKIP.name):
            from robust_edge_exporters.formats.onnx.export import converted  # imports torch.onnx, half a second
            from robust_edge_exporters.formats.onnx.int8 import check_skipped

            check_skipped(converted(model, shape, target), str(options[INT8_SKIP.name]))

    def file_differences(self, built: Path, shipped: Path) -> list[str]:
        """Operators and tensors of `model.onnx`, steps of the calibration cache; recipe and scripts byte by byte."""
        if built.name == CALIBRATION:
            return calibration_differences(built, shipped)
        compare = onnx_differences if built.suffix == ".onnx" else super().file_differences
        return compare(built, shipped)

    def contents(self, bundle: Bundle) -> Contents:
        """Read back from `model.onnx`."""
        return contents_of(bundle.artifact_path)

    def extra_files(self) -> dict[str, str]:
        """The script that builds and runs the engine."""
        return {"build_engine.py": standalone("robust_edge_runtimes.formats.tensorrt.engine.command_line")}

    def prepare_command(self, target: Target) -> str:
        """Build the engine where the device's system has TensorRT, as a Jetson's does; elsewhere pip installs it."""
        from_pip = any(line.startswith("tensorrt") for line in target.requirements)
        return super().prepare_command(target) if from_pip else BUILD
