"""A network in training as the int8 engine will compute it: integers forward, straight-through gradients backward.

The integers come from the code of the export, with the present weights, so that forward passes compute what an export
of these weights with the same ranges computes. Batch norms are folded into the weights before them with their running
statistics.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from robust_edge.int8.folded import layers_of
from robust_edge.int8.network import Int8Network
from robust_edge.int8.straight_through import straight_through
from robust_edge_exporters.native import ir
from robust_edge_exporters.native.int8 import ops
from robust_edge_exporters.native.int8.arithmetic import LARGEST_WEIGHT
from robust_edge_exporters.native.int8.calibrate import Ranges
from robust_edge_exporters.native.int8.quantise import quantise


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
                give_gradients(layer, *self.folded[op.name].tensors(), integers, op)
        logits: Tensor = network(images)
        return logits


def give_gradients(layer: nn.Module, weight: Tensor, bias: Tensor, network: ops.Int8Graph, op: ir.Weighted) -> None:
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
