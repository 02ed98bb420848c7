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
    """An exponential moving average of the weights; call `update_parameters(model)` after every optimiser step.

    Update n, counted from 0, uses the decay (1 + n) / (10 + n) if that is smaller than `decay`, so that the influence
    of the initial weights vanishes quickly.

    Args:
        model: the network at which the average starts; it is copied.
        decay: the final decay, in [0, 1).
    """

    def update(averages: Tensors, present: Tensors, _: Tensor | int) -> None:
        """Update averaged tensors in place."""
        if averages[0].is_floating_point():
            n = int(average.n_averaged) - 1  # on the CPU; the argument is a copy on the device, to be waited for
            torch._foreach_lerp_(averages, present, 1 - min(decay, (1 + n) / (10 + n)))
        else:
            torch._foreach_copy_(averages, present)  # integer buffers, such as num_batches_tracked

    average = AveragedModel(model, multi_avg_fn=update, use_buffers=True)
    average.update_parameters(model)  # AveragedModel copies the first model that it is given
    return average
