"""Starting from someone's weights instead of random ones."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from robust_edge.models import Normalized
from robust_edge_runtimes.errors import InputError


def load_initial(model: Normalized, path: Path) -> None:
    """Load a state dict into the model; never runs code from the file.

    Args:
        model: takes the values in place; its own mean and std stay.
        path: `.safetensors`, or a `.pth`/`.pt` state dict of plain tensors. Names may carry our `network.` prefix.

    Raises:
        InputError: no such file, not tensors, or names or shapes that do not fit.
    """
    tensors = {name.removeprefix("network."): tensor for name, tensor in _read(path).items()}
    own = model.network.state_dict()
    given = {name: tensor for name, tensor in tensors.items() if name not in ("mean", "std")}
    missing, extra = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    if missing or extra:
        raise InputError(f"--init {path} does not fit the model: missing {missing[:3]}, unexpected {extra[:3]}")
    for name, tensor in own.items():
        if tensor.shape != given[name].shape:
            raise InputError(
                f"--init {path}: {name} is {tuple(given[name].shape)}, the model has {tuple(tensor.shape)}"
            )
    model.network.load_state_dict(given)


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"--init {path} is not a file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, OSError) as cause:
        raise InputError(f"--init {path} cannot be read as tensors: {cause}") from cause
    except Exception as cause:  # torch's own text advises to run the file; we don't repeat it
        raise InputError(
            f"--init {path} is damaged or holds other objects than tensors, which are never run "
            f"({type(cause).__name__}); save model.state_dict()"
        ) from cause
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"--init {path} is not a plain state dict of tensors; save model.state_dict()")
    return state
