"""Disable the parameter gradients of a network during an attack."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def only_input_gradients(model: nn.Module) -> Iterator[None]:
    """Disable parameter gradients, which saves about a third of the time of an attack step."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
