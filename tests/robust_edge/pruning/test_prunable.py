import pytest
import torch
from torch import nn

from robust_edge.pruning.prunable import budget_of, decide_prunable, prunable_parameters
from robust_edge_exporters.weight_uses import sparsity_of
from robust_edge_runtimes.core.errors import InputError


def test_convolutions_and_linear_layers_in_order_of_depth_without_biases_and_batch_norm():
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU()),
        nn.Flatten(),
        nn.Linear(3, 4),
    )
    with pytest.raises(InputError, match="are not known"):
        prunable_parameters(model)
    decide_prunable(model, (1, 3, 3))
    assert list(prunable_parameters(model)) == ["0.weight", "2.0.weight", "4.weight"]


def test_counts_are_of_the_tensors():
    counts = sparsity_of({"a": torch.tensor([[0.0, -0.0, 1e-40], [2.0, float("inf"), -1.0]]), "b": torch.zeros(3)})
    assert (counts.weights, counts.nonzero) == (9, 4)
    assert [(layer.name, layer.weights, layer.nonzero) for layer in counts.layers] == [("a", 6, 4), ("b", 3, 0)]


@pytest.mark.parametrize(("keep", "size", "budget"), [(0.1, 93728, 9373), (1.0, 7, 7), (0.01, 10, 1), (0.5, 7, 4)])
def test_budget_rounds_and_is_at_least_one(keep, size, budget):
    assert budget_of({"a": torch.zeros(size)}, keep) == budget
