"""The twin of the int8 engine computes the integers of the reference, bit for bit, with gradients and without."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
import torch

from robust_edge.int8.network import Int8Network
from robust_edge.int8.straight_through import sum_dtype
from robust_edge_exporters.formats.native.integers import int8_graph_of, with_ranges
from robust_edge_exporters.formats.onnx.without_weights import GRAPH, without_weights
from robust_edge_exporters.native import Options, export_native
from robust_edge_exporters.native.importer import import_onnx
from robust_edge_exporters.native.int8 import reference
from robust_edge_exporters.native.int8.arithmetic import LARGEST_CODE
from robust_edge_exporters.native.int8.quantise import prepared, quantise, ranged_tensors
from robust_edge_exporters.native.ir import Weighted
from robust_edge_runtimes.core.errors import BundleError
from tests.exporters.native.int8.test_integers import branches, mixed, rows, sweep
from tests.exporters.native.networks import Net
from tests.exporters.native.test_kernels import WHOLE


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folder of an export of every operator and geometry, its graph of integers, and images."""
    folder, net = tmp_path_factory.mktemp("int8"), Net(2, *WHOLE)
    path, images = net.save(folder / "net.onnx", *sweep(net), *rows(net), *branches(net)), net.images(3)
    images[0, 0, 0], images[0, 1, 0] = np.nan, -np.inf
    graph = prepared(import_onnx(path))
    ranges = mixed(ranged_tensors(graph))
    export = export_native(path, folder, weights="int8", ranges=ranges, options=Options(images=2))
    onnx.save(with_ranges(without_weights(onnx.load(path)), export.ranges), folder / GRAPH)
    return folder, quantise(graph, ranges), images


def same(network, images, expected):
    twin = Int8Network(network)
    with torch.no_grad():
        np.testing.assert_array_equal(twin(torch.from_numpy(images)).numpy(), expected)
    recorded = twin(torch.from_numpy(images).requires_grad_())
    assert recorded.requires_grad
    np.testing.assert_array_equal(recorded.detach().numpy(), expected)


def test_the_twin_computes_the_integers_of_the_reference(exported):
    _, network, images = exported
    expected = reference.run(network, images)
    assert len(np.unique(expected)) > 240
    same(network, images, expected)


def test_the_files_hold_the_graph_of_integers(exported):
    folder, network, _ = exported
    read = int8_graph_of(folder)
    assert read.codings == network.codings
    for op, expected in zip(read.graph.ops, network.graph.ops, strict=True):
        assert (type(op), op.reads, op.output) == (type(expected), expected.reads, expected.output)
        if isinstance(op, Weighted):
            np.testing.assert_array_equal(op.weight, expected.weight)
            np.testing.assert_array_equal(op.bias, expected.bias)
        r, asked = getattr(op, "requantisation", None), getattr(expected, "requantisation", None)
        if r is not None:
            for name in vars(r):
                np.testing.assert_array_equal(getattr(r, name), getattr(asked, name))


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
def test_the_files_of_few_channels_hold_the_graph(channels, tmp_path):
    """Weights of at most one segment of output channels, as first layer and behind it."""
    net = Net(1, 6, 6)
    x = net.add("Relu", net.conv("input", net.weights(channels, 1, 3, 3)))
    x = net.conv(x, net.weights(channels, channels, 3, 3))
    path = net.save(tmp_path / "net.onnx", net.add("Flatten", x))
    graph = prepared(import_onnx(path))
    ranges = mixed(ranged_tensors(graph))
    export = export_native(path, tmp_path, weights="int8", ranges=ranges, options=Options(images=1))
    onnx.save(with_ranges(without_weights(onnx.load(path)), export.ranges), tmp_path / GRAPH)
    asked = [op.weight for op in quantise(graph, ranges).graph.ops if isinstance(op, Weighted)]
    read = [op.weight for op in int8_graph_of(tmp_path).graph.ops if isinstance(op, Weighted)]
    assert len(read) == 2
    assert all(map(np.array_equal, read, asked))


def test_other_files_are_refused(exported, tmp_path):
    folder, _, _ = exported
    for name in ("model.c", "weights.bin", GRAPH):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    source = (folder / "model.c").read_text()
    for field, value in (("down", 0), ("down", 31), ("residual_multiplier", 2**31)):
        (tmp_path / "model.c").write_text(re.sub(rf"{field} = \d+", f"{field} = {value}", source))
        with pytest.raises(BundleError, match=r"cannot be read from .*shifts of .* bits and multipliers of"):
            int8_graph_of(tmp_path)
    (tmp_path / "model.c").write_text(source)
    data = (folder / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(data[: len(data) // 2])
    with pytest.raises(BundleError, match=r"cannot be read from .* export the bundle again"):
        int8_graph_of(tmp_path)
    onnx.save(without_weights(onnx.load(folder / "net.onnx")), tmp_path / GRAPH)
    with pytest.raises(BundleError, match="no ranges of tensors"):
        int8_graph_of(tmp_path)


@pytest.mark.parametrize("channels", [8, 2000])
def test_logits_of_matrix_products_have_the_slope_of_the_integers(channels, tmp_path):
    """Sums beyond 2**24 are added in double precision. The gradient predicts the change between distant images."""
    net = Net(1, 6, 6)
    x = net.add("Relu", net.conv("input", net.weights(channels, 1, 3, 3)))
    head = net.constant(np.abs(net.weights(channels * 16, 3)) / 100)
    path = net.save(tmp_path / "net.onnx", net.add("Gemm", net.add("Flatten", x), head))
    graph = prepared(import_onnx(path))
    network = quantise(graph, dict.fromkeys(ranged_tensors(graph), (0.0, 8.0)))
    images = net.images(4).clip(0.2, 0.8)
    bound, exact = int(network.graph.ops[-1].weight.sum()) * LARGEST_CODE, {8: torch.float32, 2000: torch.float64}
    assert sum_dtype(bound) == exact[channels]
    same(network, images, reference.run(network, images))
    points = torch.from_numpy(images).requires_grad_()
    (slope,) = torch.autograd.grad(Int8Network(network)(points)[:, 0].sum(), points)
    step = np.float32(0.05) * np.sign(slope.numpy())
    ahead, behind = (reference.run(network, images + side * step)[:, 0] for side in (1, -1))
    predicted = (slope.numpy() * 2 * step).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(ahead - behind, predicted, rtol=0.2)
