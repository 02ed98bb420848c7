"""The network of the training attack: every batch norm folded into the convolution before it.

An attack runs in evaluation mode, where batch norm is an affine map of each channel. Folded into the weights of the
convolution it needs no pass over the activations, forward or backward, and ReLU is applied in place. The weights are
folded once per attack, which costs less than one of these passes. On a CPU the gradient of the pixels is computed in
blocks (`pixel_gradient`). The results differ from those of the network itself by rounding.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from robust_edge.training.pixel_gradient import block_kernel, block_side, pixel_gradient
from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_exporters.tracing import tracing

NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)
TOLERANCE = 1e-3
"""Largest difference of the logits from those of the network, relative to the largest logit."""
IMAGES = 2


class FoldedConvolution(nn.Module):
    """A convolution with its batch norm in evaluation mode, and the ReLU or ReLU6 behind it if there is one.

    Attributes:
        bounds: the lowest and highest output of the activation; None without one.
        side: of the blocks in which the gradient of the input is computed; None for the usual way.
        in_place: whether the gradient of the output may be overwritten, as nothing else reads it.
    """

    weight: Tensor
    bias: Tensor
    blocks: Tensor

    def __init__(self, convolution: nn.Conv2d, norm: nn.modules.batchnorm._BatchNorm) -> None:
        super().__init__()
        self.sources = (convolution, norm)  # in a tuple, so that they do not become submodules
        self.bounds: tuple[float, float] | None = None
        self.side = block_side(convolution) if convolution.weight.device.type == "cpu" else None
        self.in_place = False

    @torch.no_grad()
    def refresh(self) -> None:
        """Compute weight and bias from the present parameters."""
        convolution, norm = self.sources
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight
        before = norm.running_mean if convolution.bias is None else norm.running_mean - convolution.bias
        self.weight = convolution.weight * scale.view(-1, 1, 1, 1)
        self.bias = -before * scale if norm.bias is None else norm.bias - before * scale
        if self.side is not None:
            self.blocks = block_kernel(self.weight, self.side)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, O, H', W')."""
        own = self.sources[0]
        shape = (own.stride, own.padding, own.dilation, own.groups)
        if self.bounds is None or torch.is_autocast_enabled(images.device.type):
            found = functional.conv2d(images, self.weight, self.bias, *shape)  # type: ignore[arg-type]
            return found if self.bounds is None else functional.hardtanh(found, *self.bounds)
        fits = self.side is not None and images.shape[-1] % self.side == images.shape[-2] % self.side == 0
        way = _Backward(shape, self.bounds, self.in_place, (self.blocks, self.side) if fits else None)
        clamped: Tensor = _ClampedConvolution.apply(images, self.weight, self.bias, way)  # type: ignore[no-untyped-call]
        return clamped


class _Backward(NamedTuple):
    """How `_ClampedConvolution` computes the gradient of its input."""

    shape: Any
    bounds: tuple[float, float]
    in_place: bool
    blocks: Any


class _ClampedConvolution(torch.autograd.Function):
    """A convolution and a clamp in place; only the gradient of the input exists."""

    @staticmethod
    def forward(context: Any, images: Tensor, weight: Tensor, bias: Tensor, way: _Backward) -> Tensor:
        found = functional.conv2d(images, weight, bias, *way.shape).clamp_(*way.bounds)
        context.save_for_backward(images, weight, found)
        context.way = way
        return found

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (images, weight, found), way = context.saved_tensors, context.way
        options = {"grad_input": gradients[0]} if way.in_place else {}
        inside = torch.ops.aten.hardtanh_backward(gradients[0], found, *way.bounds, **options)
        if way.blocks is not None:
            return pixel_gradient(inside, *way.blocks), None, None, None
        stride, padding, dilation, groups = way.shape
        gradient = torch.ops.aten.convolution_backward(
            inside, images, weight, None, stride, padding, dilation, False, [0, 0], groups, [True, False, False]
        )
        return gradient[0], None, None, None


class FoldedNetwork:
    """A network whose convolutions are folded with their batch norms; it shares all other layers with the original.

    Attributes:
        graph: the traced network. Its layers are used in the mode that they are in.
    """

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self._folded = [module for module in graph.modules() if isinstance(module, FoldedConvolution)]

    def refresh(self) -> None:
        """Fold the present weights and running statistics."""
        for module in self._folded:
            module.refresh()

    def __call__(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, K) logits, as the network in evaluation mode computes them."""
        logits: Tensor = self.graph(images)
        return logits


def folded(network: nn.Module, shape: tuple[int, ...]) -> FoldedNetwork | None:
    """Trace a network and fold its batch norms.

    Args:
        network: on its device; left as it was.
        shape: (C, H, W) of an image, for a comparison with the original.

    Returns:
        None if the network cannot be traced, has no batch norm behind a convolution, or computes something else than
        the traced one.
    """
    state = torch.get_rng_state()
    with evaluation_mode(network), tracing():
        try:
            found = FoldedNetwork(_folded_graph(network))
            return found if found._folded and _agrees(found, network, shape) else None
        except Exception:  # code of the user's, which may do anything where it is traced
            return None
        finally:
            torch.set_rng_state(state)


def _folded_graph(network: nn.Module) -> fx.GraphModule:
    traced = fx.symbolic_trace(network)
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        norm, source = _module(node, modules), node.args[0] if node.args else None
        if not isinstance(norm, NORMS) or not isinstance(source, fx.Node) or len(source.users) > 1:
            continue
        convolution = _module(source, modules)
        if not _foldable(convolution, norm):
            continue
        module = FoldedConvolution(convolution, norm)  # type: ignore[arg-type]
        node.args, node.target = source.args, f"folded_{node.name}"
        traced.add_submodule(node.target, module)
        traced.graph.erase_node(source)
        module.bounds = _absorb_activation(traced.graph, node, modules)
    _let_gradients_be_overwritten(traced)
    traced.recompile()
    return traced


def _let_gradients_be_overwritten(traced: fx.GraphModule) -> None:
    """A convolution whose only reader is a folded one gets a new tensor as its gradient; others may share theirs."""
    modules = dict(traced.named_modules())
    for node in traced.graph.nodes:
        module = _module(node, modules)
        if isinstance(module, FoldedConvolution) and len(node.users) == 1:
            module.in_place = isinstance(_module(next(iter(node.users)), modules), FoldedConvolution)


def _foldable(convolution: nn.Module | None, norm: nn.Module) -> bool:
    """Whether both do what their class says; a parametrised layer has a class of its own."""
    plain = type(convolution) is nn.Conv2d and type(norm) in NORMS
    if not plain or any(module._forward_hooks or module._forward_pre_hooks for module in (convolution, norm)):  # type: ignore[union-attr]
        return False
    assert isinstance(convolution, nn.Conv2d)
    zeros = convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
    return zeros and norm.running_mean is not None


def _absorb_activation(graph: fx.Graph, node: fx.Node, modules: dict[str, nn.Module]) -> tuple[float, float] | None:
    """Remove a ReLU or ReLU6 that alone reads a node, and return its bounds."""
    (reader, *others) = node.users or [None]
    if reader is None or others:
        return None
    module = _module(reader, modules)
    if type(module) is nn.ReLU6:
        bounds = (0.0, 6.0)
    elif type(module) is nn.ReLU or reader.target in (functional.relu, torch.relu, "relu", "relu_"):
        bounds = (0.0, math.inf)
    else:
        return None
    reader.replace_all_uses_with(node)
    graph.erase_node(reader)
    return bounds


def _module(node: fx.Node, modules: dict[str, nn.Module]) -> nn.Module | None:
    return modules.get(str(node.target)) if node.op == "call_module" else None


@torch.no_grad()
def _agrees(found: FoldedNetwork, network: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether both give the same logits, on two images twice, since a layer may be random in evaluation mode, too."""
    device = next(network.parameters()).device
    images = torch.linspace(0, 1, IMAGES * math.prod(shape), device=device).view(IMAGES, *shape)
    found.refresh()
    expected = network(images)
    error = max(float((found(images) - expected).abs().max()), float((network(images) - expected).abs().max()))
    return error <= TOLERANCE * float(expected.abs().max())
