"""Contexts that switch a network's parameter gradients and training mode off, and restore them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def only_input_gradients(model: nn.Module) -> Iterator[None]:
    """Parameter gradients off, so that a step of the attack costs two forward passes and not three."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Batch-norm uses its running statistics, and does not update them.

    Afterwards every module is in its own mode again, which need not be that of the whole.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
