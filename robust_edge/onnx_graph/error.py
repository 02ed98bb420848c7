"""The error of a graph that torch cannot compute here."""

from __future__ import annotations

from robust_edge_runtimes.core.errors import InputError


class GraphError(InputError):
    """The file is not an ONNX graph, or holds an operator, or a use of one, that is not covered."""
