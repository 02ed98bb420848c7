"""Sparse-CSR TorchScript, as a row of the table of formats."""

from __future__ import annotations

import importlib
from typing import Type

from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats.csr.runtime import CsrRuntime
from robust_edge_runtimes.formats.format import Format


class CsrFormat(Format):
    """`model.ts`, executed by PyTorch."""

    description = "sparse-CSR TorchScript"
    remedy = "pip install torch"

    def runtime(self) -> Type[BaseRuntime]:
        """TorchScript on the CPU."""
        return CsrRuntime

    def probe(self) -> str:
        """Look for PyTorch, and for MKL, which makes its sparse products fast."""
        torch = importlib.import_module("torch")
        fast = torch.backends.mkl.is_available()
        return f"torch {torch.__version__}" + ("" if fast else ", without MKL: CSR products are slow")
