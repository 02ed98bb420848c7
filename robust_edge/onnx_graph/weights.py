"""Which constants of a graph are trained, and under which names a module holds them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robust_edge.onnx_graph.folding import Folded
from robust_edge.onnx_graph.operators.node import Node

LAYERS = {"Conv": (1, 2), "ConvTranspose": (1, 2), "Einsum": (0, 1), "Gemm": (0, 1, 2), "MatMul": (0, 1)}
LAYERS |= {"GRU": (1, 2, 3), "LSTM": (1, 2, 3), "RNN": (1, 2, 3)}
"""Operators with the positions of their weights and biases."""
TRAINED = {
    "GroupNormalization": (1, 2), "InstanceNormalization": (1, 2), "LayerNormalization": (1, 2), "PRelu": (1,),
    "RMSNormalization": (1,), **LAYERS,
}  # fmt: skip
AFTER_LAYERS = {"Add": (0, 1), "Mul": (0, 1)}
"""The same, but only behind a layer: what comes before it is normalisation of the pixels."""


class BatchNorm(_BatchNorm):
    """Batch norm over the second axis of (N, C, ...)."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of axes."""


def trained_names(graph: Folded) -> list[str]:
    """Names of the constants that are weights, biases, scales or shifts, in the order of their first use."""
    found: dict[str, None] = {}
    behind = False
    for node in (step.node for step in graph.steps):
        behind = behind or node.operator in LAYERS
        for name in _at(node, TRAINED.get(node.operator, ())):
            if name in graph.constants:
                found[name] = None
        for name in _at(node, AFTER_LAYERS.get(node.operator, ()) if behind else ()):
            if name in graph.constants and graph.constants[name].numel() > 1:
                found[name] = None
    return [name for name in found if graph.constants[name].is_floating_point()]


def is_batch_norm(node: Node, graph: Folded) -> bool:
    """Whether a node is a batch norm by statistics that are constants."""
    fixed = node.operator == "BatchNormalization" and not node.get("training_mode", 0)
    return fixed and all(name in graph.constants for name in node.inputs[1:])


def batch_norm(node: Node, graph: Folded) -> BatchNorm:
    """A module that computes the node, and updates its statistics in training."""
    scale, shift, mean, variance = (graph.constants[name] for name in node.inputs[1:])
    layer = BatchNorm(len(scale), node.get("epsilon", 1e-5), 1 - node.get("momentum", 0.9))
    layer.load_state_dict({"weight": scale, "bias": shift, "running_mean": mean, "running_var": variance}, strict=False)
    return layer


def batch_norm_name(node: Node) -> str:
    """What the names of its four constants share, or the name of the node."""
    stems = {name.rpartition(".")[0] for name in node.inputs[1:]}
    leaves = [name.rpartition(".")[2] for name in node.inputs[1:]]
    named = leaves == ["weight", "bias", "running_mean", "running_var"] and len(stems) == 1 and "" not in stems
    return stems.pop() if named else node.name


def place_for(module: nn.Module, name: str) -> str:
    """A dotted path below a module under which something may be registered; the modules on the way are made.

    It is the name itself, or a similar one where that cannot be a path of modules, is taken, or holds other letters
    than those of ASCII, which TorchScript cannot read.
    """
    parts = name.split(".")
    if name.isascii() and all(parts) and _is_free(module, parts):
        for part in parts[:-1]:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        return name
    flat = "".join(letter if letter.isascii() and letter != "." else "_" for letter in name) or "_"
    while hasattr(module, flat):
        flat += "_"
    return flat


def _is_free(module: nn.Module, parts: list[str]) -> bool:
    for part in parts[:-1]:
        below = module._modules.get(part)
        if below is None:
            return not hasattr(module, part)
        if type(below) is not nn.Module:
            return False
        module = below
    return not hasattr(module, parts[-1])


def _at(node: Node, positions: Iterable[int]) -> list[str]:
    return [node.inputs[position] for position in positions if position < len(node.inputs)]
