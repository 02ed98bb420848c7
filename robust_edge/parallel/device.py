"""Choose the device of a run."""

from __future__ import annotations

import torch

from robust_edge_runtimes.core.errors import InputError


def pick_device(name: str) -> torch.device:
    """The device of a name; `auto` is the first GPU, or the CPU without one.

    Raises:
        InputError: the name is not a device, or the device is not available on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` allocates, but holds no values
    except (RuntimeError, AssertionError) as cause:
        reason = str(cause).splitlines()[0]
        raise InputError(f"device {name} cannot be used here ({reason}); use cpu or auto") from cause
    return device
