"""What fails inside a library or a network becomes the answer of a target, in one line."""

import pytest
import torch
from torch import nn

from robust_edge.checking.check import check_network
from robust_edge.models.spec import ModelSpec, checked_model
from robust_edge_exporters.target import target_named

SPEC = ModelSpec(arch="own:build", shape=(1, 8, 8), classes=("a", "b", "c"), mean=(0.5,), std=(0.25,))


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(64, 3)

    def forward(self, images):
        return self.last(images.flatten(1))


class PairsOnly(Linear):
    def forward(self, images):
        if len(images) > 2:
            raise RuntimeError("not\nmore")
        return super().forward(images)


class In16Bits(Linear):
    def forward(self, images):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(images).float()


class Umlaut(Linear):
    def __init__(self):
        super().__init__()
        self.größe = nn.Linear(3, 3)

    def forward(self, images):
        return self.größe(super().forward(images))


@pytest.mark.parametrize(
    ("network", "target", "says"),
    [
        (PairsOnly, "x86-cpu", "the network cannot take 3 images: not more"),
        (In16Bits, "x86-cpu-int8", "ONNX Runtime cannot compute the ranges of the network"),
        (Umlaut, "x86-cpu-csr", "letters than those of ASCII; rename 'network.größe'"),
    ],
)
def test_a_failure_is_the_answer_for_the_target(network, target, says):
    torch.manual_seed(0)
    model = checked_model(network(), SPEC).eval()
    (answer,) = check_network(model, SPEC.shape, [target_named(target)]).targets
    assert says in answer.problem
    assert "\n" not in answer.problem
