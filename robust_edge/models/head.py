"""A trained network with a new classifier, for other classes than it was trained for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from robust_edge.models.spec import build_network
from robust_edge.models.table import GRAPH
from robust_edge.pruning.parametrised import effective_names, parametrizations_of
from robust_edge_runtimes.core.errors import InputError


def with_new_head(
    arch: str, classes: int, channels: int, *, folder: Path | None = None, old: int | None = None
) -> tuple[nn.Module, frozenset[str]]:
    """Build a network for other classes, and find the tensors that older weights do not give.

    The classifier of a network that code builds is what changes its shape with the number of classes. In the graph of
    an imported network it is the last layer; it is initialised as torch initialises linear layers.

    Args:
        arch: as in `ModelSpec`.
        classes, channels: of the images.
        folder: the run that holds the graph where `arch` is GRAPH.
        old: its number of classes.

    Returns:
        The network, and the names of the classifier's tensors in its state dict.

    Raises:
        InputError: the classifier cannot be found.
    """
    if arch == GRAPH and folder is not None and old is not None:
        return _graph(folder, old, classes)
    network = build_network(arch, classes, channels)
    with torch.random.fork_rng(devices=[]):
        other = build_network(arch, classes + 1, channels)
    shapes, others = _shapes(network), _shapes(other)
    fresh = frozenset(name for name, shape in shapes.items() if others.get(name) != shape)
    if not fresh or shapes.keys() != others.keys():
        raise InputError(
            f"the classifier of model {arch!r} cannot be found for `new_head`: no tensor changes its shape "
            "with the number of classes"
        )
    for name in effective_names(network):
        parts = frozenset(part for part in shapes if part.startswith(parametrizations_of(name)))
        if parts & fresh:
            fresh |= {name, *parts}
    return network, fresh


def _shapes(network: Any) -> dict[str, tuple[int, ...]]:
    state = network.state_dict() if isinstance(network, nn.Module) else {}
    return {name: tuple(tensor.shape) for name, tensor in state.items() if not is_lazy(tensor)}


def _graph(folder: Path, old: int, classes: int) -> tuple[nn.Module, frozenset[str]]:
    from robust_edge.onnx_graph.error import GraphError
    from robust_edge.onnx_graph.file import read_program
    from robust_edge.onnx_graph.head import with_classes
    from robust_edge.onnx_graph.network import OnnxNetwork

    try:
        program, names = with_classes(read_program(folder / GRAPH), old, classes)
    except GraphError as cause:
        raise InputError(f"`new_head` cannot replace the classifier of {folder / GRAPH}: {cause}") from cause
    network = OnnxNetwork(program)
    fresh = frozenset(map(network.place_of, names))
    for name in fresh:
        tensor = network.get_parameter(name)
        bound = math.sqrt(classes / tensor.numel()) if tensor.numel() > classes else 0.0  # 1/√inputs; a bias is 0
        nn.init.uniform_(tensor, -bound, bound)
    return network, fresh
