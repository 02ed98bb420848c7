"""Whole runs with every sparsity set: the constraint is recounted in the file, not by the scheme's own check."""

import dataclasses
import itertools
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from robust_edge.config.settings import resolve
from robust_edge.models.packed import load_tensors
from robust_edge.pruning.layout import layout_of
from robust_edge.run.directory import open_run
from robust_edge.training.compress import compress, resume
from robust_edge_runtimes.core.errors import InputError

DEPTHWISE = 1
SETTINGS = {
    "irregular": {},
    "macs": {"pruning.scheme": "irregular", "pruning.scope": "macs"},
    "layer": {"pruning.scheme": "irregular", "pruning.scope": "layer"},
    "funnel": {"pruning.scheme": "funnel"},
    "redundant": {"pruning.scheme": "redundant"},
    "nm": {"pruning.scheme": "nm"},
    "filter": {"pruning.scheme": "filter"},
}


def weights_in(path):
    tensors = load_tensors(path / "checkpoint.safetensors")
    return {name: tensor for name, tensor in tensors.items() if tensor.dim() > 1 and name.endswith("weight")}


def in_order(path, weights):
    run = open_run(path)
    layout = layout_of(run.load_model(), run.checkpoint().model.shape)
    return {name: weights[name] for name in layout.depth}, layout


def nonzero(weights):
    return sum(int(torch.count_nonzero(weight)) for weight in weights.values())


def holds(scheme, path, keep):
    """Recount one constraint in the file."""
    run = open_run(path)
    weights, layout = in_order(path, weights_in(path))
    budget = round(keep * sum(weight.numel() for weight in weights.values()))
    assert nonzero(weights) == run.checkpoint().sparsity.nonzero
    assert nonzero(weights) == budget or (scheme == "filter" and 0.9 * budget < nonzero(weights) < budget)
    kept = [Fraction(int(torch.count_nonzero(weight)), weight.numel()) for weight in weights.values()]
    assert min(kept) > 0
    arithmetic = run.checkpoint().arithmetic
    assert arithmetic.kept == sum(
        layer.macs_per_weight * int(torch.count_nonzero(weights[layer.name])) for layer in layout.layers
    )
    if scheme == "macs":
        assert arithmetic.keep <= keep
    if scheme == "layer":
        assert float(max(kept)) == pytest.approx(keep, abs=0.01)
    if scheme == "funnel":
        assert all(upper > lower for upper, lower in itertools.pairwise(kept))
    if scheme == "nm":
        for weight in weights.values():
            if weight.shape[1] in (DEPTHWISE, run.checkpoint().model.shape[0]):
                assert torch.count_nonzero(weight) == weight.numel()
            else:
                fours = weight.flatten(2).transpose(1, 2) if weight.dim() == 4 else weight[:, None]
                assert int((fours.unflatten(-1, (-1, 4)) != 0).sum(-1).max()) <= 2
    if scheme == "redundant":
        partial = [row for w in weights.values() for row in w.flatten(1) if 0 < torch.count_nonzero(row) < row.numel()]
        assert sum(int(torch.count_nonzero(row)) for row in partial) < max(w[0].numel() for w in weights.values())
        assert all((weight.flatten(1) != 0).all(1).any() for weight in weights.values())
    if scheme == "filter":
        tensors = load_tensors(path / "checkpoint.safetensors")
        for name, weight in weights.items():
            rows, columns = (weight != 0).flatten(1).any(1), (weight != 0).transpose(0, 1).flatten(1).any(1)
            assert int(torch.count_nonzero(weight)) == int(rows.sum()) * int(columns.sum()) * weight[0, 0].numel()
            norm = {"network.0.weight": "network.1", "network.3.weight": "network.4"}.get(name)
            if norm:
                assert not tensors[f"{norm}.weight"][~rows].any()
                assert not tensors[f"{norm}.bias"][~rows].any()
                assert tensors[f"{norm}.weight"][rows].all()


@pytest.mark.parametrize("scheme", SETTINGS)
def test_small_cnn(tiny, tmp_path, scheme):
    flags = {"data.limit_train": 100, "training.weight_decay": 0.01, "pruning.keep_schedule": "halve"}
    compress(tiny({**flags, **SETTINGS[scheme]}), tmp_path / "run")
    holds(scheme, tmp_path / "run", 0.1)


BRIEF = {
    "data.limit_train": 10,
    "data.limit_test": 10,
    "training.epochs": 2,
    "training.batch_size": 10,
    "attack.steps": 1,
    "admm.interval": 1,
}


@pytest.mark.parametrize(
    ("arch", "scheme"),
    [
        *(("mobilenet_v2", scheme) for scheme in SETTINGS if scheme != "layer"),
        *(("residual_network:build", scheme) for scheme in SETTINGS if scheme not in ("layer", "macs")),  # scopes
    ],
)
def test_networks_with_additions_and_depthwise_layers(tiny, tmp_path, monkeypatch, arch, scheme):
    """One step of ADMM, with its projection, and one under the mask."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    compress(tiny({**BRIEF, "arch": arch, **SETTINGS[scheme]}), tmp_path / "run")
    assert [row.phase for row in open_run(tmp_path / "run").metrics()] == ["admm", "masked"]
    holds(scheme, tmp_path / "run", 0.1)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"pruning.keep": 0.005, "pruning.floor": 0.01}, "raise pruning.keep or lower pruning.floor"),
        ({"pruning.scheme": "funnel", "pruning.keep": 0.99999}, "strictly decrease"),
        ({"pruning.scheme": "redundant", "pruning.keep": 0.01}, "raise pruning.keep"),
        ({"pruning.scheme": "nm", "pruning.keep": 0.6}, "2:4 keeps at most"),
        (
            {"pruning.scheme": "nm", "pruning.m": 5},
            "network.3.weight reads 32 channels, which groups of 5 do not divide",
        ),
        ({"pruning.scheme": "filter", "pruning.keep": 1e-4}, "the smallest network that filter pruning allows"),
        ({"pruning.scope": "macs", "pruning.macs": 0.011}, "raise pruning.macs"),
        ({"pruning.scheme": "nm", "pruning.keep_schedule": [0.8], "training.epochs": 2}, "keep is 0.8"),
    ],
)
def test_constraints_that_cannot_be_met_show_before_anything_is_written(tiny, tmp_path, flags, says):
    with pytest.raises(InputError, match=says):
        compress(tiny(flags), tmp_path / "run")
    assert not list(tmp_path.iterdir())


class Killed(BaseException):
    """Stands for the end of the process."""


EARLY = {"training.epochs": 8, "admm.rho": 0.05, "admm.rho_max": 1.0, "admm.rho_growth": 2.0, "admm.prune_when": 0.7}


@pytest.fixture(scope="module")
def early_run(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("early") / "run"
    compress(tiny(EARLY), path)
    return open_run(path)


def test_agreement_brings_the_hard_projection_forward(tiny, early_run, tmp_path):
    """Never later than the masked part; the learning rate starts its second descent where the masks begin."""
    rows = early_run.metrics()
    phases = [row.phase for row in rows]
    first = phases.index("masked")
    assert phases == ["admm"] * first + ["masked"] * (8 - first)
    assert 1 <= first < 4
    assert rows[first - 1].primal_residual <= 0.7
    assert all(row.primal_residual > 0.7 for row in rows[: first - 1])
    assert rows[first].lr == pytest.approx(0.1)
    assert rows[-1].lr < rows[first].lr / 4
    assert early_run.checkpoint().sparsity.nonzero == 9373
    compress(tiny({**EARLY, "admm.prune_when": 1e-9}), tmp_path / "never")
    assert [row.phase for row in open_run(tmp_path / "never").metrics()] == ["admm"] * 4 + ["masked"] * 4


@pytest.mark.parametrize("batches", [9, 13])
def test_an_early_projection_survives_a_kill(tiny, early_run, tmp_path, batches):
    def die(done, total, text):
        if done == batches:
            raise Killed

    with pytest.raises(Killed):
        compress(tiny(EARLY), tmp_path / "run", progress=die)
    resume(tmp_path / "run")
    name = "checkpoint.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (early_run.path / name).read_bytes()
    rows = [
        [dataclasses.replace(row, seconds=0.0) for row in run.metrics()]
        for run in (early_run, open_run(tmp_path / "run"))
    ]
    assert rows[0] == rows[1]


def test_the_target_and_the_dual_are_taken_up_again_after_a_kill(tiny, tmp_path):
    """Two epochs of ADMM follow the kill: if θ' or u started again from zero, the final weights would differ."""
    flags = {"training.epochs": 4, "data.limit_train": 100, "admm.masked_fraction": 0.2, "admm.rho": 0.05}

    def die(done, total, text):
        if done == 3:
            raise Killed

    compress(tiny(flags), tmp_path / "whole")
    with pytest.raises(Killed):
        compress(tiny(flags), tmp_path / "broken", progress=die)
    state = open_run(tmp_path / "broken").read_resume()
    assert state["epoch"] == 1
    assert all(tensor.any() for tensor in state["admm"]["dual"].values())
    resume(tmp_path / "broken")
    files = [(tmp_path / run / "checkpoint.safetensors").read_bytes() for run in ("whole", "broken")]
    assert files[0] == files[1]


def test_presets_wait_for_the_masked_part():
    assert all(resolve(preset=preset).admm.prune_when is None for preset in ("quick", "thesis"))
