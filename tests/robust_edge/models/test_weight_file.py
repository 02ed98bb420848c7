"""Checkpoints as training scripts write them: the weights are found, and no code that the file names is run."""

import argparse
import builtins
import collections
import datetime

import numpy as np
import pytest
import torch
from torch import nn

from robust_edge.models.state_dict import load_state_dict
from robust_edge_runtimes.core.errors import InputError


def network(seed=0):
    torch.manual_seed(seed)
    layers = [
        ("stem", nn.Conv2d(1, 4, 3)),
        ("norm", nn.BatchNorm2d(4)),
        ("flat", nn.Flatten()),
        ("fc", nn.Linear(4, 3)),
    ]
    return nn.Sequential(collections.OrderedDict(layers))


class Meter:
    """An object of a training script."""

    def __init__(self):
        self.averages = [1.0]


SOURCE = network()
STATE = SOURCE.state_dict()
OTHER = {name: torch.zeros_like(tensor) for name, tensor in STATE.items()}


def prefixed(prefix, state=STATE):
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "content",
    [
        {"net": prefixed("module."), "acc": 91.2},
        {"ema": STATE, "updates": 4},
        {"checkpoint": {"params": STATE}},
        {"module": STATE, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []}},
        {"state_dict": STATE, "args": argparse.Namespace(lr=0.1), "best": np.float64(0.5), "meter": Meter()},
        {"state_dict": STATE, "when": datetime.datetime(2020, 1, 1), "matrix": np.eye(3)},
        {**STATE, "epoch": 5},
        {name: int(value) if name.endswith("tracked") else value for name, value in STATE.items()},
        (STATE, {"lr": 0.1}),
        SOURCE,
        {"model": SOURCE, "epoch": 3},
        {name.replace(".", "._orig_mod.", 1): tensor for name, tensor in STATE.items()},
    ],
)
def test_the_weights_of_a_checkpoint_are_found(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    made = network(1)
    assert load_state_dict(made, tmp_path / "weights.pth") == ()
    assert all(torch.equal(tensor, STATE[name]) for name, tensor in made.state_dict().items())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"model_ema": OTHER, "model": STATE}, "those of 'model' in the file, which also holds 'model_ema'"),
        ({"student": prefixed("module."), "teacher": OTHER}, "those of 'student' in the file"),
        ({"state_dict": {**prefixed("net."), "loss.weight": torch.ones(3)}}, "of the network: 1, such as loss.weight"),
        ({**STATE, "aux1.fc.weight": torch.ones(3)}, "of the network: 1, such as aux1.fc.weight"),
    ],
)
def test_what_else_a_checkpoint_holds_is_said(tmp_path, content, says):
    torch.save(content, tmp_path / "weights.pth")
    made = network(1)
    (note,) = load_state_dict(made, tmp_path / "weights.pth")
    assert says in note
    assert all(torch.equal(tensor, STATE[name]) for name, tensor in made.state_dict().items())


class Payload:
    def __init__(self, code):
        self.code = code

    def __reduce__(self):
        return builtins.exec, (self.code,)


def test_code_beside_the_weights_is_not_run(tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "weights.pth"
    torch.save({"state_dict": STATE, "extra": Payload(f"import os; os.mkdir({str(mark)!r})")}, path)
    load_state_dict(network(1), path)
    assert not mark.exists()
    assert not any(isinstance(item, tuple) for item in torch.serialization.get_safe_globals())
    torch.load(path, weights_only=False)
    assert mark.exists(), "the file above was no threat"


def test_a_pickled_module_that_holds_itself(tmp_path):
    made = network()
    made.norm._modules["up"] = made
    torch.save(made, tmp_path / "weights.pth")
    load_state_dict(network(1), tmp_path / "weights.pth")


def test_older_names_of_densenet(tmp_path):
    def dense(name):
        return nn.ModuleDict({"denselayer1": nn.ModuleDict(name)})

    own, older = dense({"conv1": nn.Linear(2, 2)}), dense({"conv": nn.ModuleDict({"1": nn.Linear(2, 2)})})
    torch.save(older.state_dict(), tmp_path / "weights.pth")
    load_state_dict(own, tmp_path / "weights.pth")
    assert torch.equal(own["denselayer1"]["conv1"].weight, older["denselayer1"]["conv"]["1"].weight)


def test_a_file_without_the_classifier(tmp_path):
    torch.save({name: tensor for name, tensor in STATE.items() if "fc" not in name}, tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"missing \['fc.bias', 'fc.weight'\].*train one with `new_head`"):
        load_state_dict(network(1), tmp_path / "weights.pth")
    load_state_dict(network(1), tmp_path / "weights.pth", without=("fc.bias", "fc.weight"))


def test_a_prefix_where_no_tensor_is_asked_for(tmp_path):
    torch.save(prefixed("network."), tmp_path / "weights.pth")
    made = network(1)
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    load_state_dict(made, tmp_path / "weights.pth", without=[*STATE])
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())
