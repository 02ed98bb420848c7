"""The twin of an artifact of the int8 engine: its integers, computed in torch with straight-through gradients."""

from __future__ import annotations

from robust_edge.int8.network import Int8Network
from robust_edge.verification.twins.twin import Differentiable, TwinError
from robust_edge_exporters.formats.native.integers import int8_graph_of
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.errors import BundleError


def int8_twin(bundle: Bundle) -> Differentiable:
    """Read the twin from the bundle's own `weights.bin`, `model.c` and graph.

    Raises:
        TwinError: they are not those of an export of this release.
    """
    try:
        network = Int8Network(int8_graph_of(bundle.path))
    except BundleError as cause:
        raise TwinError(str(cause)) from cause
    return Differentiable(network, "the artifact's own integers", exact=True)
