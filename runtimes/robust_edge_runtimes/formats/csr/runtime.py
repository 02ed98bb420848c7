"""Sparse-CSR TorchScript artifacts, executed by PyTorch."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from typing import Any, ClassVar, Optional

import numpy as np

from robust_edge_runtimes.core.errors import BackendUnavailable, BundleError, InputError
from robust_edge_runtimes.core.runtime import BaseRuntime, RuntimeInfo
from robust_edge_runtimes.formats.csr.script import load_script

_WARNING_FILTERS = threading.Lock()


class CsrRuntime(BaseRuntime):
    """Executes `model.ts` with torch.jit on the CPU.

    PyTorch has one number of threads for the whole process: opening sets it, closing restores it. Calls may come from
    several threads. After a fork, PyTorch would wait for the threads of the parent for ever, also in a new network.
    PyTorch warns once per process that CSR tensors are a beta feature. Opening triggers that warning and suppresses it,
    because warning filters are shared by all threads and an inference must not change them.
    """

    uses_threads = True
    _network: Any = None
    _torch: Any = None
    _threads_before = 1
    _parallel: ClassVar[Optional[int]] = None  # the process that has first opened a network with several threads
    _indices_known = False  # whether the indices of the matrices have been checked, which are constants

    def open_impl(self) -> RuntimeInfo:
        """Load the scripted network."""
        try:
            import torch
        except ImportError as cause:
            raise BackendUnavailable(
                f"this bundle runs on PyTorch, which is not installed ({cause}): pip install torch"
            ) from cause
        if self.threads > 1:
            self._refuse_fork()
        try:
            with _WARNING_FILTERS, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # CSR is called a beta
                self._network = load_script(self.path)
                torch.sparse_csr_tensor(torch.tensor([0, 0]), torch.tensor([]), torch.tensor([]), (1, 1))
        except BundleError:
            raise
        except Exception as cause:  # damaged bytes can make torch raise any exception
            reason = " ".join(str(cause).split())[:300]
            raise BundleError(f"PyTorch {torch.__version__} cannot load {self.path}: {reason}") from cause
        self._threads_before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        self._torch = torch
        return RuntimeInfo("torch", str(torch.__version__), "cpu", "TorchScript CSR", self.threads)

    def _refuse_fork(self) -> None:
        if CsrRuntime._parallel not in (None, os.getpid()):
            raise InputError(
                f"{self.path.name} cannot be loaded with {self.threads} threads: PyTorch had threads before this "
                "process was forked, which has none of them; set threads=1, or start the child by `spawn`"
            )
        CsrRuntime._parallel = os.getpid()

    def infer_impl(self, images: np.ndarray) -> np.ndarray:
        """Run the network; not in inference mode, in which some versions of PyTorch cannot build CSR tensors."""
        torch, network = self._torch, self._network
        if network is None:
            raise self.not_open()
        if not images.flags.writeable:
            images = images.copy()  # torch would warn that it might be written to
        try:
            with torch.no_grad(), contextlib.nullcontext() if self._indices_known else _checked_indices(torch):
                logits: np.ndarray = network(torch.from_numpy(images)).numpy()
            self._indices_known = True
        except Exception as cause:  # as above
            reason = " ".join(str(cause).split())[:300]
            raise BundleError(f"PyTorch {torch.__version__} cannot run {self.path}: {reason}") from cause
        return logits

    def close_impl(self) -> None:
        """Drop the network."""
        self._torch.set_num_threads(self._threads_before)
        self._network = self._torch = None


def _checked_indices(torch: Any) -> Any:
    """While it lasts, CSR matrices whose indices lie outside of them are an error; torch would read other memory."""
    check = getattr(torch.sparse, "check_sparse_tensor_invariants", None)  # from PyTorch 2.0
    return contextlib.nullcontext() if check is None else check()
