"""Describe a network so that it can be built again, and build it."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robust_edge.models.normalized import Normalized
from robust_edge.models.table import ARCHITECTURES, GRAPH, ZOOS
from robust_edge.plugins import load
from robust_edge.pruning.prunable import decide_prunable
from robust_edge_exporters.evaluation_mode import evaluation_mode
from robust_edge_runtimes.core.errors import InputError


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
    """Check that the network returns logits in training mode, too; some networks return a tuple there.

    Args:
        model: the network; it is not changed.
        spec: the description that it was built from.

    Raises:
        InputError: it returns something else.
    """
    _check_logits(copy.deepcopy(model).train(), spec, 2, " in training mode")


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
        return factory(classes, channels)
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
    if not any(parameter.ndim > 1 for parameter in model.parameters()):
        raise nothing
    with evaluation_mode(model):
        for count in (2, 1):
            _check_logits(model, spec, count)
    if not decide_prunable(model, spec.shape).uses:
        raise nothing
    tensors = list(model.state_dict().values())
    if len({tensor.data_ptr() for tensor in tensors if tensor.numel()}) < sum(tensor.numel() > 0 for tensor in tensors):
        raise InputError(
            f"model {spec.arch!r} shares one tensor between two places, which safetensors cannot store; clone it"
        )


def _check_logits(model: Normalized, spec: ModelSpec, count: int, when: str = "") -> None:
    try:
        with torch.no_grad():
            logits = model(torch.zeros(count, *spec.shape))
    except (RuntimeError, ValueError, TypeError, IndexError) as cause:
        one = "one image of shape" if count == 1 else "images of shape"
        reason = " ".join(str(cause).split())[:300]
        raise InputError(f"model {spec.arch!r} cannot take {one} {spec.shape}{when}: {reason}") from cause
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (count, len(spec.classes)):
        shown = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        hint = "; a squeeze() without an axis also removes the axis of the images" if count == 1 else ""
        raise InputError(
            f"model {spec.arch!r} gives {shown} for {count} image{'s'[: count - 1]}{when}, expected "
            f"({count}, {len(spec.classes)}) logits{hint}"
        )
