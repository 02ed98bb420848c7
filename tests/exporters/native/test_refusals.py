"""What the sparse engine does not run is refused in one line, with the operator and the node."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from robust_edge_exporters.native import Options
from robust_edge_exporters.native.export import export_native
from robust_edge_exporters.native.importer import import_onnx
from robust_edge_runtimes.core.errors import ExportError
from tests.exporters.native.networks import Net


@pytest.mark.parametrize(
    ("kind", "attributes", "message"),
    [
        ("Softsign", {}, "Softsign at node 'node_softsign1': the sparse engine does not have this operator"),
        ("ReduceMean", {"axes": (0,), "keepdims": 1}, "not over the images of a batch"),
        ("Concat", {"axis": 0}, "along axis 0"),
        ("Transpose", {"perm": (1, 0, 2, 3)}, r"reads a tensor of dimensions \(3, 32\); the engine needs .* by image"),
        ("Flatten", {"axis": 2}, "only axis 1"),
        ("AveragePool", {"kernel_shape": (9, 9)}, "output would be"),
    ],
)
def test_what_the_engine_does_not_run_is_named(kind, attributes, message, tmp_path):
    net = Net(3, 4, 4)
    path = net.save(tmp_path / "model.onnx", net.add(kind, "input", **attributes))
    with pytest.raises(ExportError, match=message):
        export_native(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_constants_that_are_no_numbers_or_do_not_fit_are_refused(tmp_path):
    net = Net(3, 4, 4)
    ones, none = net.constant(np.ones(3, np.float32)), net.constant(np.zeros(3, np.float32))
    path = net.save(
        tmp_path / "model.onnx", net.add("BatchNormalization", "input", ones, ones, ones, none, epsilon=0.0)
    )
    with np.errstate(divide="ignore"), pytest.raises(ExportError, match="a shift that is not finite"):
        export_native(path, tmp_path / "out")
    net = Net(3, 4, 4)
    matrix, bias = net.constant(net.weights(48, 7)), net.constant(net.weights(5, 7))
    path = net.save(tmp_path / "model.onnx", net.add("Gemm", net.add("Flatten", "input"), matrix, bias))
    with pytest.raises(ExportError, match="only one value, or one per feature"):
        export_native(path, tmp_path / "out")


def test_operators_of_training_are_refused(tmp_path):
    net = Net(3, 4, 4)
    ratio, training = net.constant(np.float32(0.5)), net.constant(np.True_)
    path = net.save(tmp_path / "model.onnx", net.add("Dropout", "input", ratio, training))
    with pytest.raises(ExportError, match="Dropout at node 'node_dropout3': in training mode"):
        export_native(path, tmp_path / "out")
    net = Net(3, 4, 4)
    statistics = [net.constant(np.abs(net.vector(3))) for _ in range(4)]
    path = net.save(tmp_path / "model.onnx", net.add("BatchNormalization", "input", *statistics, training_mode=1))
    with pytest.raises(ExportError, match=r"BatchNormalization at node .*: in training mode"):
        export_native(path, tmp_path / "out")


def test_statistics_that_follow_the_number_of_images_are_refused(tmp_path):
    """As torch's exporter writes an instance norm with running statistics: as a batch norm of N x C channels."""
    net = Net(8, 4, 4)
    shape = net.constant(np.array((1, -1, 4, 4), np.int64))
    count = net.add("Shape", "input", start=0, end=1)
    scale = net.add("Tile", net.constant(np.ones(8, np.float32)), count)
    joined = net.add("Reshape", net.conv("input", net.weights(8, 8, 1, 1)), shape)
    net.add("BatchNormalization", joined, scale, scale, scale, scale)
    with pytest.raises(ExportError, match=r"input 1 .* depends on the number of images"):
        import_onnx(net.save(tmp_path / "model.onnx"))


def test_a_weight_computed_at_run_time_is_refused(tmp_path):
    net = Net(1, 3, 3)
    path = net.save(tmp_path / "model.onnx", net.add("Conv", "input", net.add("Relu", "input")))
    with pytest.raises(ExportError, match=r"input 1 .* must be a constant"):
        export_native(path, tmp_path / "out")


def test_a_network_of_vectors_is_refused(tmp_path):
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 3])
    node = helper.make_node("Relu", ["x"], ["y"])
    graph = helper.make_graph([node], "g", [value], [helper.make_tensor_value_info("y", 1, ["N", 3])])
    onnx.save(helper.make_model(graph), tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"the engine needs \(N, C, H, W\)"):
        export_native(tmp_path / "model.onnx", tmp_path / "out")


@pytest.mark.parametrize("kernel", ["columns", "taps", "depthwise"])
def test_a_kernel_that_only_some_layers_have_cannot_be_forced(kernel):
    with pytest.raises(ValueError, match=f"kernel {kernel}: .* use sparse, dense or None"):
        Options(kernel=kernel)


def test_a_graph_without_its_weights_is_no_network(tmp_path):
    """A bundle's graph.onnx is one: values are filled in where a dense baseline is timed."""
    net = Net(3, 4, 4)
    path = net.save(tmp_path / "model.onnx", net.conv("input", net.weights(8, 3, 3, 3)))
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    onnx.save(model, path)
    with pytest.raises(ExportError, match=r"does not hold the values of 'constant\d+'.*; export the network itself"):
        export_native(path, tmp_path / "out")
