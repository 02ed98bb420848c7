"""Describe a network so that it can be built again, and build it."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from robust_edge.models.normalized import Normalized
from robust_edge.models.plain import plain_network
from robust_edge.models.table import ARCHITECTURES, GRAPH, ZOOS
from robust_edge.plugins import load
from robust_edge.pruning.prunable import decide_prunable
from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_runtimes.core.errors import InputError

LARGEST_DIFFERENCE = 1e-2
"""Of the logits of one image in two batches, relative: far more than rounding."""
LARGEST_CHANGE = 1e-5
"""Of the logits of the same batch, computed twice."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Architecture and preprocessing of a network; stored in every checkpoint.

    Attributes:
        arch: a key of ARCHITECTURES, `LIBRARY/NAME` of ZOOS, GRAPH for the graph in the run's folder, or
            `package.module:function` with the signature `function(num_classes, in_channels) -> nn.Module`.
        shape: (C, H, W) of one image.
        classes: class names, in the order of the logits.
        mean: one value per channel, subtracted inside the model.
        std: one value per channel, by which the model divides.
    """

    arch: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def build_model(spec: ModelSpec, folder: Path | None = None) -> Normalized:
    """Build the network; its initial weights follow from torch's global random state.

    Args:
        spec: what to build.
        folder: the run directory that holds the graph where `spec.arch` is GRAPH, whose weights are zero until they
            are loaded; it is not needed for other architectures.

    Raises:
        InputError: the architecture is unknown, the network does not return (N, K) logits, or it has no prunable
            layer.
    """
    return checked_model(build_network(spec.arch, len(spec.classes), spec.shape[0], folder), spec)


def checked_model(network: Any, spec: ModelSpec) -> Normalized:
    """Put the normalisation before a network and check it as `build_model` does."""
    if not isinstance(network, nn.Module):
        raise InputError(f"model {spec.arch!r} returned {type(network).__name__}, not a torch.nn.Module")
    model = Normalized(network, spec.mean, spec.std)
    model.spec = spec
    _check(model, spec)
    return model


def check_training(model: Normalized, spec: ModelSpec) -> None:
    """Check that the network returns logits in training mode, too, and that it has gradients.

    Some networks return a tuple there; others overwrite what the backward pass needs.

    Args:
        model: the network; it is not changed.
        spec: the description that it was built from.

    Raises:
        InputError: it returns something else, or its backward pass fails.
    """
    copied = copy.deepcopy(model).train()
    _logits(copied, spec, 2, " in training mode")
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            copied(_images(spec).requires_grad_()).sum().backward()
    except Exception as cause:  # the network is the user's; it may raise anything
        reason = " ".join(str(cause).split())[:300]
        raise InputError(f"model {spec.arch!r} cannot be trained, its backward pass fails: {reason}") from cause


def build_network(arch: str, classes: int, channels: int, folder: Path | None = None) -> Any:
    """Build a network without normalisation; its initial weights follow from torch's global random state.

    Args:
        arch, folder: as `build_model`.
        classes: K, the number of logits.
        channels: C, of the images.

    Raises:
        InputError: the architecture is unknown, or a function of the user's fails.
    """
    library, _, name = arch.partition("/")
    if arch == GRAPH:
        return _graph(folder)
    if name and library in ZOOS and ":" not in name:
        return load("library of models", library, ZOOS)(name, classes, channels)
    factory = load("model", arch, {**ARCHITECTURES, **{f"{library}/NAME": row for library, row in ZOOS.items()}})
    if ":" not in arch:
        return factory(classes, channels)
    try:
        network = factory(classes, channels)
        return plain_network(network) if isinstance(network, nn.Module) else network
    except Exception as cause:  # the function is the user's; it may raise anything
        raise InputError(
            f"model {arch!r} failed ({type(cause).__name__}: {cause}); it is called as "
            f"function(num_classes={classes}, in_channels={channels})"
        ) from cause


def _graph(folder: Path | None) -> nn.Module:
    from robust_edge.onnx_graph.network import read_network

    if folder is None:
        raise InputError(f"model {GRAPH!r} is the graph of an imported network; give its run as `init`")
    return read_network(folder / GRAPH)


def _check(model: Normalized, spec: ModelSpec) -> None:
    nothing = InputError(
        f"model {spec.arch!r} has no convolution and no linear layer that the image reaches, so nothing to prune; use "
        "another"
    )
    if not any(is_lazy(parameter) or parameter.ndim > 1 for parameter in model.parameters()):
        raise nothing
    _check_parts(model, spec)
    with evaluation_mode(model):
        _check_reproducible(model, spec)
        _check_differentiable(model, spec)
    if not decide_prunable(model, spec.shape).uses:
        raise nothing


def _check_parts(model: Normalized, spec: ModelSpec) -> None:
    """Check that all parameters are float32, and that torch can copy all modules."""
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise InputError(
                f"{name} of model {spec.arch!r} is {str(parameter.dtype).removeprefix('torch.')}; targets compute "
                "with float32: call .float() on the network, make a parameter of integers a buffer, and a complex one "
                "two real ones"
            )
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise InputError(
                f"module {name!r} of model {spec.arch!r} is compiled by TorchScript, which cannot be copied, folded or "
                "traced; use the module that torch.jit.script or torch.jit.trace was given"
            )


def _check_reproducible(model: Normalized, spec: ModelSpec) -> None:
    """Check that the logits of an image depend on nothing but the image."""
    both = _logits(model, spec, 2)  # which also gives lazy modules their shapes
    if not both.isfinite().all():
        raise InputError(
            f"model {spec.arch!r} gives logits that are NaN or infinite; see which layer does first, and take weights "
            "from before training diverged"
        )
    again, alone = _logits(model, spec, 2), _logits(model, spec, 1)
    if _differ(again, both, LARGEST_CHANGE):
        raise InputError(
            f"model {spec.arch!r} gives other logits when it is called again with the same images, in evaluation mode; "
            "dropout and noise must depend on self.training, and no buffer may change there"
        )
    if _differ(alone, both[:1], LARGEST_DIFFERENCE):
        raise InputError(
            f"model {spec.arch!r} gives one image other logits alone than beside another one; in evaluation mode "
            "nothing may be computed over a batch, as batch norm without running statistics does"
        )


def _check_differentiable(model: Normalized, spec: ModelSpec) -> None:
    """Check that the logits depend on the image through torch, as attacks need."""
    image, found = _images(spec)[:1].requires_grad_(), None
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            logits = model(image)
            if logits.requires_grad:
                (found,) = torch.autograd.grad(logits.sum(), image, allow_unused=True)
    except Exception as cause:  # the network is the user's; it may raise anything
        reason = " ".join(str(cause).split())[:300]
        raise InputError(f"model {spec.arch!r} cannot be attacked, its backward pass fails: {reason}") from cause
    if found is None:
        raise InputError(
            f"model {spec.arch!r} has no gradient of the logits with respect to the image, which attacks need; its "
            "forward pass must not use torch.no_grad, detach or numpy"
        )


def _differ(logits: Tensor, others: Tensor, most: float) -> bool:
    return bool((logits - others).abs().max() > most * others.abs().max())


def _logits(model: Normalized, spec: ModelSpec, count: int, when: str = "") -> Tensor:
    """The logits of the first `count` images of a fixed sequence, after a check of their shape."""
    try:
        with torch.no_grad():
            logits = model(_images(spec)[:count])
    except Exception as cause:  # the network is the user's; it may raise anything
        one = "one image of shape" if count == 1 else "images of shape"
        reason = " ".join(str(cause).split())[:300]
        raise InputError(f"model {spec.arch!r} cannot take {one} {spec.shape}{when}: {reason}") from cause
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (count, len(spec.classes)):
        shown = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"model {spec.arch!r} gives {shown} for {count} image{'s'[: count - 1]}{when}, expected "
            f"({count}, {len(spec.classes)}) logits{_hint(logits, count, len(spec.classes))}"
        )
    return logits


def _images(spec: ModelSpec) -> Tensor:
    return torch.rand(2, *spec.shape, generator=torch.Generator().manual_seed(0))


def _hint(logits: Any, count: int, classes: int) -> str:
    """What usually lies behind an output of another kind or shape."""
    if not isinstance(logits, Tensor):
        return "; return the tensor of logits alone, for example from a module that wraps the network"
    if logits.numel() == count * classes and logits.ndim > 1:
        return "; end with .flatten(1)"
    return "; a squeeze() without an axis also removes the axis of the images" if count == 1 else ""
