"""Batches of another size, and checkpoints that no conversion can agree with."""

import numpy as np
import pytest
import torch
from torch import nn

from robust_edge_exporters.parity import _refuse_dependence
from robust_edge_exporters.tolerance import ill_conditioned
from robust_edge_runtimes.core.errors import ExportError


@pytest.mark.parametrize("few", [np.zeros((1, 4)), np.ones(4), np.full((1, 4), np.nan)])
def test_logits_that_depend_on_the_number_of_images_are_refused(few):
    logits = np.arange(20.0).reshape(5, 4)
    _refuse_dependence({1: logits[:1], 3: logits[:3] + 1e-6}, logits, 1e-3)
    with pytest.raises(ExportError, match=r"other logits for 1 image"):
        _refuse_dependence({1: few}, logits, 1e-3)


class Cancelling(nn.Module):
    """A small difference of large numbers."""

    def forward(self, x):
        return (x.flatten(1) + 1e6) - 1e6


def test_a_checkpoint_whose_own_rounding_is_large_is_named():
    images = np.random.default_rng(0).random((4, 1, 2, 2), np.float32)
    assert "ill-conditioned" in ill_conditioned(Cancelling(), images)
    assert ill_conditioned(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), images) == ""
    assert torch.get_default_dtype() == torch.float32
