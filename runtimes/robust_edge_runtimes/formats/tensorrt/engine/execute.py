"""Executing: an engine in memory, one context, stream and pair of buffers for each of its profiles."""

import sys
import threading
from typing import Any

from robust_edge_runtimes.formats.cuda.errors import EngineError
from robust_edge_runtimes.formats.cuda.library import Cuda
from robust_edge_runtimes.formats.tensorrt.engine.settings import Settings

try:
    import numpy as np
except ImportError:
    if __name__ != "__main__":  # also true when this module is a part of build_engine.py in a bundle
        raise
    print("error: numpy is missing: python3 -m pip install -r requirements.txt", file=sys.stderr)
    sys.exit(3)


class Engine:
    """A loaded engine. Calls from several threads run one after the other."""

    def __init__(self, trt: Any, cuda: Cuda, settings: Settings, data: bytes) -> None:
        self._lock = threading.Lock()
        self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            raise EngineError(f"TensorRT {trt.__version__} cannot load the engine; run `build_engine.py --force`")
        self._profiles = [
            Profile(cuda, self._engine, settings, index, batch) for index, batch in enumerate(settings.batches())
        ]
        self.classes = self._profiles[0].classes
        self.version = str(trt.__version__)

    def infer(self, images: np.ndarray) -> np.ndarray:
        """(N, C, H, W) float32 to (N, K) float32; an N above the largest profile is computed in several calls."""
        with self._lock:
            if not self._profiles:
                raise EngineError("the engine was closed")
            most = self._profiles[-1].batch
            parts = [self._infer_part(images[i : i + most]) for i in range(0, len(images), most)]
        logits: np.ndarray = np.concatenate(parts)
        return logits

    def _infer_part(self, images: np.ndarray) -> np.ndarray:
        smallest = next(profile for profile in self._profiles if len(images) <= profile.batch)
        return smallest.infer(np.ascontiguousarray(images, dtype=np.float32))

    def close(self) -> None:
        """Wait for running calls, then free the contexts, the engine and the runtime, in this order."""
        with self._lock:
            for profile in self._profiles:
                profile.close()
            self._profiles = []
            self._engine = None
            self._runtime = None


class Profile:
    """One optimization profile: its context, its stream, its buffers.

    Attributes:
        batch: largest number of images.
        classes: number of logits of one image.
    """

    def __init__(self, cuda: Cuda, engine: Any, settings: Settings, index: int, batch: int) -> None:
        self.batch = batch
        self._cuda, self._settings = cuda, settings
        self._has_names = hasattr(engine, "num_io_tensors")  # 8.5 and newer; binding indices before
        self._stream = cuda.stream()
        self._context = engine.create_execution_context()
        if self._context is None:
            raise EngineError("TensorRT could not make an execution context; the device is short of memory")
        if index:
            self._context.set_optimization_profile_async(index, self._stream)
            cuda.synchronize(self._stream)
        if not self._has_names:
            per_profile = engine.num_bindings // len(settings.batches())
            names = (settings.input, settings.output)
            self._bindings = [0] * engine.num_bindings
            self._indices = [engine.get_binding_index(name) + index * per_profile for name in names]
        self.classes = self._set_batch(batch)
        self._in = cuda.allocate(4 * batch * int(np.prod(settings.shape)))
        self._out = cuda.allocate(4 * batch * self.classes)

    def _set_batch(self, batch: int) -> int:
        """Set the number of images of the next call; returns the number of logits per image."""
        shape = (batch,) + self._settings.shape
        if self._has_names:
            if self._settings.batch is None:
                self._context.set_input_shape(self._settings.input, shape)
            return int(tuple(self._context.get_tensor_shape(self._settings.output))[1])
        if self._settings.batch is None:
            self._context.set_binding_shape(self._indices[0], shape)
        return int(tuple(self._context.get_binding_shape(self._indices[1]))[1])

    def infer(self, images: np.ndarray) -> np.ndarray:
        """(N, C, H, W) float32, contiguous, N at most `batch`, to (N, K) float32."""
        self._set_batch(len(images))
        self._cuda.upload(self._in, images)
        if not self._start():
            raise EngineError(f"TensorRT could not run {len(images)} image(s)")
        self._cuda.synchronize(self._stream)
        logits = np.empty((len(images), self.classes), dtype=np.float32)
        self._cuda.download(logits, self._out)
        return logits

    def _start(self) -> bool:
        if self._has_names:
            self._context.set_tensor_address(self._settings.input, self._in)
            self._context.set_tensor_address(self._settings.output, self._out)
            return bool(self._context.execute_async_v3(self._stream))
        self._bindings[self._indices[0]], self._bindings[self._indices[1]] = self._in, self._out
        return bool(self._context.execute_async_v2(self._bindings, self._stream))

    def close(self) -> None:
        """Free the context, the buffers and the stream."""
        self._context = None
        self._cuda.free(self._in)
        self._cuda.free(self._out)
        self._cuda.destroy(self._stream)
