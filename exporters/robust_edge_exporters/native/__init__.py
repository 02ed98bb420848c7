"""The sparse engine: generate C without dependencies from an ONNX file; its time decreases with the number of zeros."""

from robust_edge_exporters.native.export import LayerReport, NativeExport, export_native, unsupported
from robust_edge_exporters.native.kernel import Options
from robust_edge_runtimes.core.errors import ExportError

__all__ = ["ExportError", "LayerReport", "NativeExport", "Options", "export_native", "unsupported"]
