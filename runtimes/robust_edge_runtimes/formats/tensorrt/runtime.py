"""TensorRT artifacts: ONNX and a recipe, built into an engine on the device at first use."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from robust_edge_runtimes.core.errors import BackendUnavailable, BundleError
from robust_edge_runtimes.core.runtime import BaseRuntime, RuntimeInfo
from robust_edge_runtimes.formats.tensorrt import engine as tensorrt_engine

_LOG = logging.getLogger(__name__)


class TensorRtRuntime(BaseRuntime):
    """Executes the engine of a bundle; calls from several threads run one after the other."""

    _engine: Any = None

    def open_impl(self) -> RuntimeInfo:
        """Find the kept engine for this GPU and TensorRT, or build it."""
        try:
            settings = tensorrt_engine.Settings.of_bundle(str(self.path.parent))
        except tensorrt_engine.EngineError as cause:
            raise BundleError(str(cause)) from cause
        try:
            trt = tensorrt_engine.import_tensorrt()
            cuda = tensorrt_engine.Cuda()
            self._engine = tensorrt_engine.open_engine(settings, log=_LOG.warning, cuda=cuda, trt=trt)
        except tensorrt_engine.EngineError as cause:
            raise BackendUnavailable(str(cause)) from cause
        if self._engine.classes != len(self.manifest.classes):
            classes = self._engine.classes
            self._engine.close()
            raise BundleError(f"{self.path} gives {classes} logits, the manifest names {len(self.manifest.classes)}")
        return RuntimeInfo("tensorrt", self._engine.version, cuda.gpu(), "TensorRT engine", self.threads)

    def infer_impl(self, images: np.ndarray) -> np.ndarray:
        """Run the engine, in parts where the batch is larger than its largest profile."""
        engine = self._engine
        if engine is None:
            raise self.not_open()
        try:
            logits: np.ndarray = engine.infer(images)
        except tensorrt_engine.EngineError as cause:
            if self._engine is not engine:
                raise self.not_open() from cause
            raise BackendUnavailable(str(cause)) from cause
        return logits

    def close_impl(self) -> None:
        """Free the engine and its memory."""
        self._engine.close()
        self._engine = None
