"""Starting from given weights (`--init`) instead of random ones."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from robust_edge.models import Normalized
from robust_edge.pruning.prunable import prunable_parameters
from robust_edge.run.directory import WEIGHTS
from robust_edge_runtimes.core.errors import InputError

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts store the state dict in a larger checkpoint."""
PREFIXES = ("module.", "_orig_mod.", "network.")
"""Prefixes that data-parallel training, torch.compile and `Normalized` add to every name."""


def load_initial(model: Normalized, path: Path) -> None:
    """Load a state dict into the model without unpickling code.

    Args:
        model: changed in place; its mean and std stay.
        path: `.safetensors`, or a `.pth`/`.pt` state dict of plain tensors, by itself or under one of the keys in
            WRAPPERS; names may have PREFIXES.

    Raises:
        InputError: the file cannot be read, holds other objects than tensors, has other names or shapes than the
            model, or values that are not finite.
    """
    own = model.network.state_dict()
    given = _unwrapped(_read(path), own)
    missing, extra = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    if missing or extra:
        raise InputError(f"--init {path} does not fit the model: missing {missing[:3]}, unexpected {extra[:3]}")
    for name, tensor in own.items():
        if tensor.shape != given[name].shape:
            raise InputError(
                f"--init {path}: {name} is {tuple(given[name].shape)}, the model has {tuple(tensor.shape)}"
                f"{_other_task(name, own, model, given[name])}"
            )
        if not given[name].isfinite().all():
            raise InputError(f"--init {path}: {name} holds NaN or infinity; take a checkpoint from before it diverged")
    model.network.load_state_dict(given)


def _unwrapped(tensors: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefix whose removal gives the most names of the network."""
    found = [tensors]
    for prefix in (*PREFIXES[:2], *PREFIXES):
        found.append({name.removeprefix(prefix): tensor for name, tensor in found[-1].items()})
    best = max(found, key=lambda names: len(own.keys() & names.keys()))
    return {name: tensor for name, tensor in best.items() if name in own or name not in ("mean", "std")}


def _other_task(name: str, own: dict[str, Tensor], model: Normalized, given: Tensor) -> str:
    """Explain a shape mismatch of the first or last layer by its number of channels or classes; otherwise ""."""
    weights = [layer.removeprefix("network.") for layer in prunable_parameters(model)]
    ends = {weights[-1], weights[-1].removesuffix("weight") + "bias"}
    if name in ends and given.shape[:1] != own[name].shape[:1]:
        return f"; it was trained for {given.shape[0]} classes, the data set has {own[name].shape[0]}"
    if name == weights[0] and given.ndim > 1 and given.shape[1:2] != own[name].shape[1:2]:
        return f"; it takes images of {given.shape[1]} channels, the data set has {own[name].shape[1]}"
    return ""


def _read(path: Path) -> dict[str, Tensor]:
    if path.is_dir():
        raise InputError(f"--init {path} is a folder; give the path of a file, for a run {path / WEIGHTS}")
    if not path.is_file():
        raise InputError(f"--init {path} is not a file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, OSError) as cause:
        raise InputError(f"--init {path} cannot be read as tensors: {cause}") from cause
    except Exception as cause:  # torch's own message recommends loading the file with weights_only=False
        raise InputError(
            f"--init {path} is damaged or holds other objects than tensors, which are not loaded "
            f"({type(cause).__name__}); save model.state_dict()"
        ) from cause
    if isinstance(state, dict):
        state = next((state[key] for key in WRAPPERS if isinstance(state.get(key), dict)), state)
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"--init {path} is not a plain state dict of tensors; save model.state_dict()")
    return state
