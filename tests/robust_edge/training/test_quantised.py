"""A masked phase that ends in integers: resumed in the middle, written with its ranges, and exported with them."""

from __future__ import annotations

import json
import platform

import onnx
import pytest
import torch

from robust_edge.data.holdout import hold_out
from robust_edge.export import GoldenSettings, export_run
from robust_edge.int8.simulation import Simulation
from robust_edge.run.directory import open_run
from robust_edge.run.images import dataset_of
from robust_edge.training.compress import compress, resume
from robust_edge.training.quantised import measured
from robust_edge_exporters.formats.native.integers import RANGES
from robust_edge_exporters.formats.onnx.without_weights import GRAPH
from robust_edge_exporters.quantisation import TooFewBits
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.errors import InputError, TrainingDiverged

FLAGS = {"training.quantize": "int8", "training.quantize_share": 1.0, "pruning.scheme": "block", "pruning.keep": 0.3,
         "admm.masked_fraction": 0.6, "data.limit_train": 50, "data.limit_test": 20, "training.batch_size": 25,
         "attack.steps": 1}  # fmt: skip


class Stopped(Exception):
    pass


def test_an_interrupted_run_in_integers_ends_as_one_that_was_not(tiny, tmp_path):
    whole = compress(tiny(FLAGS), tmp_path / "whole")
    assert whole.ranges
    assert all(low <= high for low, high in whole.ranges.values())

    def stop(done, total, text):
        if done > total * 0.8:
            raise Stopped

    with pytest.raises(Stopped):
        compress(tiny(FLAGS), tmp_path / "half", progress=stop)
    assert resume(tmp_path / "half").ranges == whole.ranges
    first, second = (open_run(tmp_path / name).load_model().state_dict() for name in ("whole", "half"))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    target = "arm-cpu-sparse-int8" if platform.machine() == "aarch64" else "x86-cpu-sparse-int8"
    run = open_run(tmp_path / "whole")
    export_run(run, target_named(target), tmp_path / "bundle", golden=GoldenSettings(images=20, steps=1))
    properties = {item.key: item.value for item in onnx.load(tmp_path / "bundle" / GRAPH).metadata_props}
    assert {name: tuple(bounds) for name, bounds in json.loads(properties[RANGES]).items()} == whole.ranges


def test_training_in_integers_goes_on_where_floats_ended(tiny, tmp_path):
    flags = {"training.quantize": "int8", "pruning.scheme": "block", "pruning.keep": 0.1, "data.limit_train": 500,
             "training.epochs": 8, "attack.steps": 1}  # fmt: skip
    compress(tiny(flags), tmp_path / "run")
    losses = [row.loss for row in open_run(tmp_path / "run").metrics()]
    assert losses[-1] < losses[-2]


def test_the_network_in_integers_is_written_with_its_own_ranges(tiny, tmp_path):
    """Not an epoch in floats, however good, and not the ranges of the network whose average it is."""
    flags = {**FLAGS, "training.quantize_share": 0.01, "selection.held_out": 10, "averaging.decay": 0.9}
    found = compress(tiny(flags), tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert found.epoch == len(run.metrics())
    remaining, _ = hold_out(dataset_of(run).train, 10)
    assert found.ranges == measured(run.load_model(), remaining)


def test_weights_that_8_bits_cannot_hold_end_the_run_with_the_last_good_network(tiny, tmp_path, monkeypatch):
    calls, forward = [], Simulation.forward

    def failing(self, images):
        calls.append(len(images))
        if len(calls) > 7:
            raise TooFewBits("a unit of a layer's sums is 300 units of its output")
        return forward(self, images)

    monkeypatch.setattr(Simulation, "forward", failing)
    with pytest.raises(TrainingDiverged, match=r"8 bits became too few in epoch \d+: a unit.*training\.lr"):
        compress(tiny({**FLAGS, "admm.masked_fraction": 0.9}), tmp_path / "run")
    kept = open_run(tmp_path / "run").checkpoint()
    assert "8 bits" in kept.diverged
    assert kept.ranges


def test_integers_without_a_masked_phase_are_refused(tiny):
    with pytest.raises(InputError, match=r"training\.quantize"):
        tiny({"training.quantize": "int8", "pruning.keep": 1.0})
