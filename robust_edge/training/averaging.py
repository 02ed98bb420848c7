"""An exponential moving average of the weights along the run.

Source: Izmailov 2018 (averaging finds flatter minima), Gowal 2020 (its use in adversarial training). The average covers
the floating-point buffers, too, so that batch-norm's running statistics belong to the averaged weights.

Under a mask the average stays sparse, provided that it starts at the masked weights: the average of zeros is zero.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from robust_edge.models import Normalized

Tensors = list[Tensor] | tuple[Tensor, ...]


def moving_average(model: Normalized, decay: float) -> AveragedModel:
    """An average that starts at the present weights; `update_parameters(model)` moves it towards later ones.

    Update n, counted from 0, uses the decay (1 + n) / (10 + n) where that is smaller, so that the weights at the start
    soon lose their influence.

    Args:
        model: copied.
        decay: in [0, 1), of the later updates.
    """

    def update(averages: Tensors, present: Tensors, averaged: Tensor | int) -> None:
        """Update tensors of one type in place; `averaged` counts the models so far, the first one included."""
        if averages[0].is_floating_point():
            n = int(averaged) - 1
            torch._foreach_lerp_(averages, present, 1 - min(decay, (1 + n) / (10 + n)))
        else:
            torch._foreach_copy_(averages, present)  # counters of batches

    average = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    average.update_parameters(model)  # AveragedModel copies the first model that it is given
    return average
