"""The twin of an ONNX artifact: its graph, executed node by node in torch."""

from __future__ import annotations

from robust_edge.onnx_graph.error import GraphError
from robust_edge.onnx_graph.network import read_network
from robust_edge.verification.twins.twin import Differentiable, FixedBatch, TwinError
from robust_edge_runtimes.core.bundle import Bundle


def onnx_twin(bundle: Bundle) -> Differentiable:
    """Read the twin from the bundle's own `model.onnx`.

    Raises:
        TwinError: the graph contains an operator, or attributes of one, that are not supported; names the node.
    """
    try:
        network = read_network(bundle.artifact_path).requires_grad_(False)
    except GraphError as cause:
        raise TwinError(
            f"{cause}, so that mode whitebox cannot follow the artifact's own arithmetic; allow the flag no_twin to "
            "accept that"
        ) from cause
    size = bundle.manifest.input.shape[0]
    made_from = "the artifact's own ONNX graph"
    if network.estimated:
        made_from += f" (straight-through gradients of {', '.join(network.estimated)})"
    return Differentiable(network if size is None else FixedBatch(network, size), made_from)
