"""Generated C with sparse kernels, compiled on this machine and called through ctypes."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from typing import Any, Optional

import numpy as np

from robust_edge_runtimes.adapters.native_build import library
from robust_edge_runtimes.errors import BackendUnavailable, BundleError
from robust_edge_runtimes.runtime import BaseRuntime, RuntimeInfo

WEIGHTS = "weights.bin"
ALIGNMENT = 64


class NativeRuntime(BaseRuntime):
    """Executes the network of `model.c` and `weights.bin`; calls from several threads run one after the other."""

    _network: Optional[Network] = None

    def open_impl(self) -> RuntimeInfo:
        """Find or build the library, read the weights, and check both against the manifest."""
        network = Network(
            library(self.path.parent, self.manifest.files), self.path.parent / WEIGHTS, threads=self.threads
        )
        expected = (*self.manifest.input.shape[1:], len(self.manifest.classes))
        if network.shape != expected:
            network.close()
            raise BundleError(f"{self.path} computes {network.shape} (C, H, W, classes), the manifest says {expected}")
        self._network = network
        return RuntimeInfo("native", network.library.stem, "cpu", "sparse C", self.threads)

    def infer_impl(self, images: np.ndarray) -> np.ndarray:
        """Run the network on a batch."""
        assert self._network is not None
        return self._network.infer(images)

    def close_impl(self) -> None:
        """Stop the threads and free the context."""
        assert self._network is not None
        self._network.close()
        self._network = None


class Network:
    """One context of a compiled network, with the weights it reads in place.

    Args:
        path: the shared library.
        weights: the weights file that was exported with it.
        threads: of one inference.

    Raises:
        BackendUnavailable: the library cannot be loaded here.
        BundleError: the weights file is damaged or belongs to another network.
    """

    def __init__(self, path: Path, weights: Path, *, threads: int = 1) -> None:
        self.library = path
        self._functions = _load(path)
        self._weights = _read_aligned(weights)
        self._lock = threading.Lock()
        self._context: Optional[int] = None
        address, size = self._weights.ctypes.data, self._weights.size
        status = self._functions.re_check(address, size)
        if status != 0:
            text = self._functions.re_status_text(status).decode()
            raise BundleError(f"{weights}: {text}; export the bundle again")
        self._context = self._functions.re_create(address, size, threads)
        if not self._context:
            raise BackendUnavailable(f"{weights}: not enough memory for the network")
        shape = (ctypes.c_int * 4)()
        self._functions.re_shape(shape)
        self.shape = tuple(shape)

    def infer(self, images: np.ndarray) -> np.ndarray:
        """Logits of a batch.

        Args:
            images: (N, C, H, W) float32, contiguous.

        Returns:
            (N, K) float32, a new array.
        """
        logits = np.empty((len(images), self.shape[3]), np.float32)
        with self._lock:
            if self._context is None:
                raise BackendUnavailable(f"{self.library} was closed")
            self._functions.re_infer(self._context, images.ctypes.data, logits.ctypes.data, len(images))
        return logits

    @property
    def memory(self) -> int:
        """Bytes that the context holds beyond the weights."""
        return int(self._functions.re_memory(self._context))

    def close(self) -> None:
        """Stop the threads and free the memory; a second call does nothing."""
        with self._lock:
            context, self._context = self._context, None
        if context is not None:
            self._functions.re_destroy(context)


def _load(path: Path) -> Any:
    try:
        functions = ctypes.CDLL(str(path))
        functions.re_create.restype = ctypes.c_void_p
        functions.re_create.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        functions.re_check.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        functions.re_status_text.restype = ctypes.c_char_p
        functions.re_infer.restype = None
        functions.re_infer.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
        functions.re_memory.restype = ctypes.c_size_t
        functions.re_memory.argtypes = (ctypes.c_void_p,)
        functions.re_destroy.restype = None
        functions.re_destroy.argtypes = (ctypes.c_void_p,)
        functions.re_shape.restype = None
    except (OSError, AttributeError) as cause:
        raise BackendUnavailable(f"{path} cannot be loaded ({cause}); delete it, it is built again") from cause
    return functions


def _read_aligned(path: Path) -> np.ndarray:
    """The file's bytes at an address that whole cache lines start at."""
    try:
        size = path.stat().st_size
        memory = np.empty(size + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        data = memory[start : start + size]
        with path.open("rb") as file:
            got = file.readinto(data.data)
    except OSError as cause:
        raise BundleError(f"{path} cannot be read ({cause}); export the bundle again") from cause
    return data[:got]
