"""Generated C with sparse kernels, compiled on this machine and called through ctypes."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Iterator, Optional

import numpy as np

from robust_edge_runtimes.core.errors import BackendUnavailable, BundleError
from robust_edge_runtimes.core.runtime import BaseRuntime, RuntimeInfo
from robust_edge_runtimes.formats.native.engine import (
    HEADER,
    SOURCE,
    WEIGHTS,
    DamagedError,
    EngineError,
    Network,
    library,
)


class NativeRuntime(BaseRuntime):
    """Executes the network of `model.c` and `weights.bin`; calls from several threads run one after the other."""

    uses_threads = True
    compiles = True
    _network: Optional[Network] = None

    @property
    def exact(self) -> bool:
        """In 8 bits all sums are integers, which do not depend on the order of additions."""
        return self.manifest.artifact.precision == "int8"

    def open_impl(self) -> RuntimeInfo:
        """Find or build the library, read the weights, and check both against the manifest."""
        artifact = self.manifest.artifact
        for name in (SOURCE, HEADER, WEIGHTS):
            if name not in artifact.files:
                raise BundleError(
                    f"{self.path.parent}: {name} is not listed as a part of the artifact, so its hash cannot be checked"
                )
        with _translated_errors():
            network = self.network_of_artifact()
        expected = (*self.manifest.input.shape[1:], len(self.manifest.classes))
        if network.shape != expected:
            network.close()
            raise BundleError(f"{self.path} computes {network.shape} (C, H, W, classes), the manifest says {expected}")
        self._network = network
        return RuntimeInfo("native", network.library.stem, "cpu", "sparse C", self.threads)

    def network_of_artifact(self) -> Network:
        """Load the bundle's library for this CPU, or compile the source where no earlier call has."""
        return self._load(library(self.path.parent, self.manifest.artifact.files))

    def _load(self, path: Path) -> Network:
        return Network(path, self.path.parent / WEIGHTS, threads=self.threads)

    def infer_impl(self, images: np.ndarray) -> np.ndarray:
        """Run the network on a batch."""
        network = self._network
        if network is None:
            raise self.not_open()
        try:
            return network.infer(images)
        except EngineError as cause:  # closed, or prepared before this process was forked
            raise self.not_open() from cause

    def close_impl(self) -> None:
        """Stop the threads and free the context."""
        assert self._network is not None
        self._network.close()
        self._network = None


class FromSourceRuntime(NativeRuntime):
    """Compiles the bundle's source for itself; no library of the bundle or of the cache is used.

    Attributes:
        compiled: the bytes of the library that it has made; None before `open()`.
    """

    compiled: Optional[bytes] = None

    def network_of_artifact(self) -> Network:
        """Compile into a temporary folder; a loaded library stays in memory without its file."""
        with tempfile.TemporaryDirectory() as folder:
            built = library(self.path.parent, cache=Path(folder))
            self.compiled = built.read_bytes()
            return self._load(built)


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except DamagedError as cause:
        raise BundleError(str(cause)) from cause
    except EngineError as cause:
        raise BackendUnavailable(str(cause)) from cause
