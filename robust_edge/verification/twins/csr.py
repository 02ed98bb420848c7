"""The twin of a CSR TorchScript artifact: the file itself, since torch differentiates its sparse products."""

from __future__ import annotations

import torch

from robust_edge.verification.twins.twin import Differentiable, TwinError
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.formats.csr.script import load_script

ROUNDING = frozenset(f"aten::{name}" for name in ("ceil", "floor", "round", "sgn", "sign", "trunc"))
"""Operators whose gradient is zero. A network may have given them another one, which TorchScript does not hold."""


def csr_twin(bundle: Bundle) -> Differentiable:
    """Load the bundle's own `model.ts`.

    Raises:
        TwinError: this version of torch cannot load it.
    """
    try:
        network = load_script(bundle.artifact_path)
    except Exception as cause:  # torch raises many types of errors
        reason = " ".join(str(cause).split())[:300]
        raise TwinError(f"{bundle.artifact_path} cannot be loaded by torch {torch.__version__}: {reason}") from cause
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    rounding = {node.kind() for node in network.inlined_graph.nodes()} & ROUNDING
    return Differentiable(network, "the artifact's own TorchScript", rounding=tuple(sorted(rounding)))
