"""Sparse engine: an ONNX file becomes dependency-free C whose time falls with the number of non-zeros."""

from robust_edge_runtimes.errors import ExportError
from .export import LayerReport, NativeExport, export_native
from .plan import Kernel, Options

__all__ = ["ExportError", "Kernel", "LayerReport", "NativeExport", "Options", "export_native"]
