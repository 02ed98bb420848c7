"""A network in training as the int8 engine will compute it: integers forward, straight-through gradients backward.

The integers come from the code of the export, with the present weights, so that forward passes compute what an export
of these weights with the same ranges computes. Batch norms are folded into the weights before them with their running
statistics, which do not change here.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robust_edge.int8.network import Int8Network
from robust_edge.int8.straight_through import straight_through
from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_exporters.native import ir
from robust_edge_exporters.native.int8 import ops
from robust_edge_exporters.native.int8.arithmetic import LARGEST_WEIGHT
from robust_edge_exporters.native.int8.calibrate import Ranges
from robust_edge_exporters.native.int8.quantise import quantise
from robust_edge_runtimes.core.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Folded:
    """A convolution or linear layer and the batch norm that alone reads its output, if there is one."""

    layer: nn.Module
    norm: _BatchNorm | None

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Weight and bias with the batch norm, as functions of the parameters."""
        weight, bias = self.layer.weight, self.layer.bias
        assert isinstance(weight, Tensor)
        start = torch.zeros(len(weight), device=weight.device) if bias is None else bias
        assert isinstance(start, Tensor)
        if self.norm is None:
            return weight, start
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = torch.rsqrt(norm.running_var + norm.eps)
        if norm.affine:
            scale = scale * norm.weight
        shift = (start - norm.running_mean) * scale + (norm.bias if norm.affine else 0)
        return weight * scale.reshape(-1, *(1,) * (weight.ndim - 1)), shift


class Simulation(nn.Module):
    """Raw pixels to the logits of the int8 engine, with gradients of pixels and parameters.

    Args:
        model: the network in training; its parameters are used, not copied.
        graph: of its export, as `quantise.prepared` gives it.
        ranges: of the tensors of the graph.
        shape: (C, H, W) of the images.

    Raises:
        InputError: a weight of the graph belongs to no layer that can be simulated.
    """

    def __init__(self, model: nn.Module, graph: ir.Graph, ranges: Ranges, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.graph, self.ranges = graph, ranges
        self.folded = layers_of(graph, model, shape)
        self._integers: tuple[tuple[int, ...], ops.Int8Graph] | None = None

    def integers(self) -> ops.Int8Graph:
        """The graph of integers of the present parameters; it is computed once for each of their values."""
        tensors = [
            t for item in self.folded.values() for m in (item.layer, item.norm) if m for t in m.state_dict().values()
        ]
        version = tuple(tensor._version for tensor in tensors)
        if self._integers is None or self._integers[0] != version:
            self._integers = (
                version,
                quantise(self.graph.with_ops([self._present(op) for op in self.graph.ops]), self.ranges),
            )
        return self._integers[1]

    def _present(self, op: ir.Op) -> ir.Op:
        if not isinstance(op, ir.Weighted):
            return op
        with torch.no_grad():
            weight, bias = (tensor.float().cpu().numpy() for tensor in self.folded[op.name].tensors())
        return dataclasses.replace(op, weight=weight.reshape(op.weight.shape), bias=bias)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) raw pixels to (N, K) logits."""
        integers = self.integers()
        network = Int8Network(integers).to(images.device)
        for op, layer in zip(integers.graph.ops, network.layers, strict=True):
            if isinstance(op, ir.Weighted):
                follow(layer, *self.folded[op.name].tensors(), integers, op)
        logits: Tensor = network(images)
        return logits


def follow(layer: nn.Module, weight: Tensor, bias: Tensor, network: ops.Int8Graph, op: ir.Weighted) -> None:
    """Give the weights and the bias of a layer of integers the gradients of the real numbers that they stand for."""
    source = network.codings[op.inputs[0]]
    rows = weight.detach().flatten(1).abs().amax(dim=1) / LARGEST_WEIGHT
    scales = torch.where(rows == 0, 1.0, rows)
    codes = weight / scales.reshape(-1, *(1,) * (weight.ndim - 1))
    starts = bias / (source.scale * scales) - source.zero * codes.flatten(1).sum(dim=1)
    for name, smooth in (("weight", codes), ("bias", starts)):
        exact = layer.get_buffer(name)
        del layer._buffers[name]
        setattr(layer, name, straight_through(smooth.to(exact.dtype).reshape(exact.shape), exact))


def layers_of(graph: ir.Graph, model: nn.Module, shape: tuple[int, ...]) -> dict[str, Folded]:
    """The layers of a network whose weights a graph holds, by the name of the weight.

    Args:
        graph: of float operators, made from the network.
        model: left as it was.
        shape: (C, H, W).

    Raises:
        InputError: a weight of the graph belongs to no layer that can be simulated.
    """
    found = folded_layers(model, shape)
    missing = [op.name for op in graph.ops if isinstance(op, ir.Weighted) and op.name not in found]
    if missing:
        raise InputError(
            f"training.quantize int8 cannot follow the weights {', '.join(missing)}: they belong to no Conv2d or "
            "Linear whose output one batch norm or none reads; use training.quantize none"
        )
    return found


def folded_layers(model: nn.Module, shape: tuple[int, ...]) -> dict[str, Folded]:
    """Every convolution and linear layer by the name of its weight, with the batch norm behind it."""
    owners = {
        module: f"{name}.weight" for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))
    }
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    written: dict[int, tuple[nn.Module, Tensor]] = {}  # keeps the tensors alive, so that their numbers stay theirs
    behind: dict[nn.Module, _BatchNorm] = {}

    def wrote(module: nn.Module, _: object, output: Tensor) -> None:
        written[id(output)] = module, output

    def read(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if id(inputs[0]) in written:
            assert isinstance(module, _BatchNorm)
            behind[written[id(inputs[0])][0]] = module

    handles = [module.register_forward_hook(wrote) for module in owners]
    handles += [norm.register_forward_pre_hook(read) for norm in norms]
    try:
        with torch.no_grad(), evaluation_mode(model):
            model(torch.zeros(1, *shape, device=next(model.parameters()).device))
    finally:
        for handle in handles:
            handle.remove()
    return {name: Folded(module, behind.get(module)) for module, name in owners.items()}
