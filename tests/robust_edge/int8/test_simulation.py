"""Training that computes the integers of the export of its present weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch.nn import functional

from robust_edge.int8.simulation import Simulation
from robust_edge.models import ModelSpec, build_model
from robust_edge_exporters.artifact import ExportSettings
from robust_edge_exporters.formats.native.export import write_dense
from robust_edge_exporters.native.importer import import_onnx
from robust_edge_exporters.native.int8 import reference
from robust_edge_exporters.native.int8.calibrate import ranges
from robust_edge_exporters.native.int8.quantise import prepared, quantise, ranged_tensors
from robust_edge_exporters.target import target_named

SHAPE = (1, 8, 8)


def exported(model, folder, images):
    """The graph of floats of a network's export, and its ranges on images."""
    written = write_dense(model, SHAPE, target_named("x86-cpu-sparse-int8"), str(folder), ExportSettings())
    path = Path(folder) / written.file
    graph = prepared(import_onnx(path))
    return graph, ranges(onnx.load(path), ranged_tensors(graph), images)


@pytest.fixture
def simulated(tmp_path):
    torch.manual_seed(0)
    spec = ModelSpec(arch="small_cnn", shape=SHAPE, classes=tuple("abc"), mean=(0.4,), std=(0.3,))
    model, images = build_model(spec, None), torch.rand(64, *SHAPE)
    model.train()
    for _ in range(5):
        model(images)  # running statistics
    model.eval()
    graph, known = exported(model, tmp_path, images.numpy())
    return model, Simulation(model, graph, known, SHAPE), images, known


def test_it_computes_the_integers_of_an_export_of_the_present_weights(simulated, tmp_path):
    model, simulation, images, known = simulated
    for _ in range(2):
        graph, _ = exported(model, tmp_path, images.numpy())
        expected = reference.run(quantise(graph, known), images.numpy())
        found = simulation(images)
        np.testing.assert_allclose(found.detach().numpy(), expected, atol=2e-2 * np.abs(expected).max())
        assert (np.sort(np.abs(found.detach().numpy() - expected).ravel())[: expected.size // 2] == 0).all()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)


def test_gradients_of_pixels_and_parameters_are_those_of_the_floats(simulated):
    model, simulation, images, _ = simulated
    labels, points = torch.arange(64) % 3, images.clone().requires_grad_()
    found = {}
    for name, network in (("int8", simulation), ("fp32", model)):
        inputs = [points, *model.parameters()]
        found[name] = torch.autograd.grad(functional.cross_entropy(network(points), labels), inputs)
    for ours, theirs in zip(found["int8"], found["fp32"], strict=True):
        assert functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.9


def test_training_lowers_the_loss_of_the_integers(simulated):
    model, simulation, images, _ = simulated
    labels, optimizer = torch.arange(64) % 3, torch.optim.SGD(model.parameters(), 0.1)
    images, losses = images * (0.2 + 0.4 * labels[:, None, None, None]), []
    for _ in range(20):
        optimizer.zero_grad()
        loss = functional.cross_entropy(simulation(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.97 * losses[0]
