"""An exponential mean of the weights along the run, as explicit state.

Source: Izmailov 2018 (averaging finds flatter minima), Gowal 2020 (its use in adversarial training). The mean covers
the floating-point buffers, too, so that batch-norm's running statistics belong to the averaged weights.

Under a mask the mean stays sparse, provided that it starts at the masked weights: the mean of zeros is zero.
"""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor

from robust_edge.models import Normalized


@dataclasses.dataclass(frozen=True)
class AverageState:
    """The mean so far.

    Attributes:
        tensors: a whole state dict; owned, and changed by `step`.
        updates: how many steps it has seen since its start.
    """

    tensors: dict[str, Tensor]
    updates: int


def init(model: Normalized) -> AverageState:
    """Start at the present weights."""
    return AverageState({name: tensor.detach().clone() for name, tensor in model.state_dict().items()}, 0)


@torch.no_grad()
def step(state: AverageState, model: Normalized, decay: float) -> AverageState:
    """Move the mean towards the present weights.

    The first steps use the smaller decay (1 + n) / (10 + n), so that the start is soon forgotten.

    Args:
        state: its tensors are changed in place and live on in the result.
        model: after the optimiser and the mask.
        decay: of the steps once the start is forgotten.
    """
    present = min(decay, (1 + state.updates) / (10 + state.updates))
    for name, tensor in model.state_dict().items():
        mean = state.tensors[name]
        if tensor.is_floating_point():
            mean.lerp_(tensor, 1 - present)
        else:
            mean.copy_(tensor)  # counters
    return AverageState(state.tensors, state.updates + 1)


def averaged(state: AverageState, model: Normalized) -> Normalized:
    """A network of its own with the mean as its weights, in evaluation mode."""
    network = copy.deepcopy(model)
    network.load_state_dict(state.tensors)
    return network.eval()
