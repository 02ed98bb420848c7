"""Which device a run uses."""

from __future__ import annotations

import torch

from robust_edge_runtimes.core.errors import InputError


def pick_device(name: str) -> torch.device:
    """`auto` is the first GPU if there is one.

    Raises:
        InputError: not a device name, or not on this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # `meta` allocates, but holds no values
    except (RuntimeError, AssertionError) as cause:
        reason = str(cause).splitlines()[0]
        raise InputError(f"--device {name} cannot be used here ({reason}); try cpu or auto") from cause
    return device
