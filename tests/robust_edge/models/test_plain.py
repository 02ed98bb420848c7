"""Networks inside the wrappers of training scripts."""

import warnings

import pytest
import torch
from torch import nn

from robust_edge.models.plain import plain_network
from robust_edge.pruning.parametrised import effective_names


class Compiled(nn.Module):
    """Holds the network as torch.compile does, whose import takes seconds."""

    def __init__(self, network):
        super().__init__()
        self._orig_mod = network


def test_wrappers_are_taken_off_at_any_depth():
    linear, head = nn.Linear(4, 3), nn.Linear(3, 2)
    network = plain_network(nn.DataParallel(nn.Sequential(Compiled(linear), head)))
    assert [*network] == [linear, head]


@pytest.mark.parametrize("name", ["weight_norm", "spectral_norm"])
def test_hooks_that_compute_a_weight_become_parametrizations(name):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the functions are deprecated
        network = nn.Sequential(getattr(nn.utils, name)(nn.Linear(4, 3))).eval()
    rows = torch.rand(5, 4)
    before = network(rows)
    plain_network(network)
    assert [*effective_names(network)] == ["0.weight"]
    assert torch.allclose(network(rows), before, atol=1e-6)
