"""TensorRT artifacts: ONNX and a recipe, built into an engine on the device at first use."""

from __future__ import annotations

import logging
from typing import Optional

import numpy as np

from robust_edge_runtimes.core.errors import BackendUnavailable, BundleError
from robust_edge_runtimes.core.runtime import BaseRuntime, RuntimeInfo
from robust_edge_runtimes.formats.cuda.errors import EngineError
from robust_edge_runtimes.formats.cuda.library import Cuda
from robust_edge_runtimes.formats.tensorrt.engine.build import import_tensorrt
from robust_edge_runtimes.formats.tensorrt.engine.execute import Engine
from robust_edge_runtimes.formats.tensorrt.engine.open_engine import open_engine
from robust_edge_runtimes.formats.tensorrt.engine.settings import Settings

_LOG = logging.getLogger(__name__)


class TensorRtRuntime(BaseRuntime):
    """Executes the engine of a bundle; calls from several threads run one after the other."""

    compiles = True
    _engine: Optional[Engine] = None

    def open_impl(self) -> RuntimeInfo:
        """Load the cached engine for this GPU and TensorRT version, or build it."""
        try:
            settings = Settings.of_bundle(self.path.parent)
        except EngineError as cause:
            raise BundleError(str(cause)) from cause
        try:
            trt, cuda = import_tensorrt(), Cuda()
            engine = open_engine(settings, log=_LOG.warning, cuda=cuda, trt=trt)
            device = cuda.gpu()
        except EngineError as cause:
            raise BackendUnavailable(str(cause)) from cause
        if engine.classes != len(self.manifest.classes):
            engine.close()
            raise BundleError(
                f"{self.path} gives {engine.classes} logits, the manifest names {len(self.manifest.classes)}"
            )
        self._engine = engine
        return RuntimeInfo("tensorrt", engine.version, device, "TensorRT engine", self.threads)

    def infer_impl(self, images: np.ndarray) -> np.ndarray:
        """Run the engine, in several calls if the batch is larger than its largest profile."""
        engine = self._engine
        if engine is None:
            raise self.not_open()
        try:
            return engine.infer(images)
        except EngineError as cause:
            if self._engine is not engine:
                raise self.not_open() from cause
            raise BackendUnavailable(str(cause)) from cause

    def close_impl(self) -> None:
        """Free the engine and its memory."""
        assert self._engine is not None
        self._engine.close()
        self._engine = None
