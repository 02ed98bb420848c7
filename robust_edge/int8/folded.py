"""The layers of a network in training whose weights, folded with their batch norms, a graph of its export holds."""

from __future__ import annotations

import copy
import dataclasses
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_exporters.native import ir
from robust_edge_runtimes.core.errors import InputError

M = TypeVar("M", bound=nn.Module)
INSTEAD = "use training.quantize none, and calibrate at export"


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
            f"Linear whose output one batch norm or none reads; {INSTEAD}"
        )
    return found


def require_followed(graph: ir.Graph, model: nn.Module, shape: tuple[int, ...]) -> None:
    """Check that the graph computes with what `Folded.tensors` gives, and with no other parameters of the network.

    It does not where a batch norm reads a sum, as in ResNets whose batch norms come first, or where the export folds
    something else into the weights, as the factor of MobileNetV3's hard sigmoids.

    Args:
        graph: of float operators, made from the network.
        model: from `probe`, as networks before their training have equal batch norms.
        shape: (C, H, W).

    Raises:
        InputError: a parameter or a batch norm belongs to no layer that can be simulated.
    """
    found = layers_of(graph, model, shape)
    used = {op.name: (op, found[op.name]) for op in graph.ops if isinstance(op, ir.Weighted)}
    others = [name for name, (op, layer) in used.items() if not _holds(op, layer)]
    modules = {module for _, layer in used.values() for module in (layer.layer, layer.norm)}
    followed = {parameter for module in modules if module for parameter in module.parameters(recurse=False)}
    others += [name for name in _reaching(model, shape) if model.get_parameter(name) not in followed]
    others += [name for name, norm in _norms_of(model, shape).items() if not norm.affine and norm not in modules]
    if others:
        raise InputError(
            f"training.quantize int8 cannot follow {', '.join(others[:5])}{' ...' * (len(others) > 5)}: it follows a "
            "Conv2d or Linear, and the batch norm that alone reads its output, where the export folds nothing else "
            f"into the weights; {INSTEAD}"
        )


def probe(model: M) -> M:
    """A copy whose batch norms all differ from each other and from the identity."""
    copied, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
    for module in copied.modules():
        if isinstance(module, _BatchNorm):
            tensors = (module.running_mean, module.running_var, module.weight, module.bias)
            for tensor in tensors:
                if tensor is not None:
                    tensor.data = 0.5 + torch.rand(tensor.shape, generator=generator)
    return copied


def _holds(op: ir.Weighted, layer: Folded) -> bool:
    with torch.no_grad():
        weight, bias = (tensor.float().cpu().numpy() for tensor in layer.tensors())
    return (
        weight.size == op.weight.size
        and np.allclose(weight.reshape(op.weight.shape), op.weight, rtol=1e-4, atol=1e-6)
        and np.allclose(bias, op.bias, rtol=1e-4, atol=1e-4)
    )


def _reaching(model: nn.Module, shape: tuple[int, ...]) -> list[str]:
    """The names of the parameters on which the logits depend."""
    named = dict(model.named_parameters())
    with torch.enable_grad(), evaluation_mode(model):
        for parameter in named.values():
            parameter.requires_grad_(True)
        logits = model(torch.full((1, *shape), 0.5))
        gradients = torch.autograd.grad(logits.sum(), list(named.values()), allow_unused=True)
    return [name for name, gradient in zip(named, gradients, strict=True) if gradient is not None]


def _norms_of(model: nn.Module, shape: tuple[int, ...]) -> dict[str, _BatchNorm]:
    """The batch norms that a forward pass calls, by name."""
    names = {module: name for name, module in model.named_modules() if isinstance(module, _BatchNorm)}
    called: dict[str, _BatchNorm] = {}
    handles = [
        norm.register_forward_pre_hook(lambda module, _: called.update({names[module]: module})) for norm in names
    ]
    try:
        with torch.no_grad(), evaluation_mode(model):
            model(torch.zeros(1, *shape))
    finally:
        for handle in handles:
            handle.remove()
    return called


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
