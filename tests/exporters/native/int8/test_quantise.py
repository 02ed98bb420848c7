"""Graphs of integers beside the float networks that they were made of."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from robust_edge_exporters.native import Options
from robust_edge_exporters.native.geometry import Shape, Window
from robust_edge_exporters.native.importer import import_onnx
from robust_edge_exporters.native.int8 import ops, reference
from robust_edge_exporters.native.int8.arithmetic import Coding, requantisation, sum_bounds
from robust_edge_exporters.native.int8.calibrate import ranges
from robust_edge_exporters.native.int8.ops import words
from robust_edge_exporters.native.int8.quantise import prepared, quantise, ranged_tensors
from robust_edge_exporters.native.kernels.conv_blocks import KERNEL as CONV_BLOCKS
from robust_edge_runtimes.core.errors import ExportError
from tests.exporters.native.networks import Net, relative_error
from tests.exporters.native.networks import reference as float_answers

SAME = {"pads": (1, 1, 1, 1)}


def normalised(net):
    shifted = net.add("Sub", "input", net.constant(np.float32([0.4, 0.5, 0.6]).reshape(3, 1, 1)))
    return net.add("Div", shifted, net.constant(np.float32([0.2, 0.3, 0.2]).reshape(3, 1, 1)))


def relu(net, source):
    return net.add("Relu", source)


def head(net, source, channels):
    x = net.add("Flatten", net.add("GlobalAveragePool", source))
    return net.add("Gemm", x, net.constant(net.weights(channels, 7)), net.constant(net.vector(7)))


def residual_network(net):
    x = relu(net, net.conv(normalised(net), net.weights(8, 3, 3, 3), **SAME))
    x = net.add("MaxPool", x, kernel_shape=(3, 3), strides=(2, 2), **SAME)
    y = relu(net, net.conv(x, net.weights(8, 8, 3, 3), **SAME))
    x = relu(net, net.add("Add", net.conv(y, net.weights(8, 8, 3, 3), **SAME), x))
    y = relu(net, net.conv(x, net.weights(12, 8, 3, 3), strides=(2, 2), **SAME))
    y = net.conv(y, net.weights(12, 12, 3, 3), **SAME)
    x = relu(net, net.add("Add", y, net.conv(x, net.weights(12, 8, 1, 1), strides=(2, 2))))
    return head(net, x, 12)


def gated_network(net):
    x = net.add("HardSwish", net.conv("input", net.weights(8, 3, 3, 3), strides=(2, 2), **SAME))
    y = net.conv(x, net.weights(8, 1, 3, 3), group=8, **SAME)
    y = net.add("Mul", y, net.add("Sigmoid", y))
    gate = net.add("Sigmoid", net.conv(net.add("GlobalAveragePool", y), net.weights(8, 8, 1, 1)))
    x = net.add("Add", net.conv(net.add("Mul", y, gate), net.weights(8, 8, 1, 1)), x)
    pooled = net.add("AveragePool", x, kernel_shape=(3, 3), count_include_pad=1, **SAME)
    x = net.add("Concat", net.add("LeakyRelu", x, alpha=0.1), pooled, axis=1)
    return head(net, net.add("Gelu", net.conv(x, net.weights(6, 16, 3, 3))), 6)


def flattened_network(net):
    bounds = [net.constant(np.float32(bound)) for bound in (0, 6)]
    x = net.add("Clip", net.conv("input", net.weights(5, 3, 3, 3)), *bounds)
    x = net.add("Flatten", net.add("AveragePool", x, kernel_shape=(2, 2), strides=(2, 2)))
    x = relu(net, net.add("Gemm", x, net.constant(net.weights(5 * 25, 9)), net.constant(net.vector(9))))
    return net.add("Gemm", x, net.constant(net.weights(9, 4)), net.constant(net.vector(4)))


def without_matrix(net):
    x = relu(net, net.conv("input", net.weights(4, 3, 3, 3), strides=(2, 2)))
    return net.add("GlobalAveragePool", x)


NETWORKS = {f.__name__: f for f in (residual_network, gated_network, flattened_network, without_matrix)}


def quantised(path, images):
    graph = prepared(import_onnx(path))
    return quantise(graph, ranges(onnx.load(path), ranged_tensors(graph), images))


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_nearly_those_of_the_float_network(name, tmp_path):
    net = Net(3, 12, 12)
    path, images = net.save(tmp_path / "model.onnx", NETWORKS[name](net), opset=20), net.images(8)
    network = quantised(path, images)
    assert {type(op).__name__ for op in network.graph.ops} >= {"Quantise", "QuantConv"}
    assert relative_error(reference.run(network, images), float_answers(path, images)) < 0.05


def test_a_relu_costs_no_operator_and_its_codes_begin_at_zero(tmp_path):
    net = Net(3, 12, 12)
    path, images = net.save(tmp_path / "model.onnx", residual_network(net)), net.images(4)
    network = quantised(path, images)
    convs = [op for op in network.graph.ops if isinstance(op, ops.QuantConv)]
    assert len(convs) == 6
    assert sum(op.residual is not None for op in convs) == 2
    assert sum(network.codings[op.output].zero > 0 for op in convs) == 1  # the one without a ReLU
    assert network.codings[network.graph.ops[0].output].zero > 0  # pixels minus their mean


@pytest.mark.parametrize(("node", "called"), [("Resize", "Rearrange"), ("LayerNormalization", "LayerNorm")])
def test_an_operator_without_integers_is_refused(node, called, tmp_path):
    net = Net(4, 8, 8)
    x = net.conv("input", net.weights(4, 4, 1, 1))
    if node == "Resize":
        x = net.add("Resize", x, "", net.constant(np.float32([1, 1, 2, 2])), mode="nearest")
    else:
        x = net.add("LayerNormalization", net.add("Transpose", x, perm=(0, 2, 3, 1)), net.constant(net.vector(4)))
    path, images = net.save(tmp_path / "model.onnx", x), net.images(2)
    with pytest.raises(ExportError, match=f"{called} .* in 8 bits.*x86-cpu-int8"):
        quantised(path, images)


@pytest.mark.parametrize(("channels", "size", "kernel"), [(512, 28, 3), (512, 14, 3), (512, 7, 3), (2048, 7, 1)])
def test_the_widest_layers_of_known_networks_fit_16_bit_offsets(channels, size, kernel):
    shape, pad = words(Shape(channels, size, size)), kernel // 2
    weight = np.ones((4, channels, kernel, kernel), np.int8)
    r = requantisation(np.zeros(4, np.int64), sum_bounds(np.zeros(4, np.int64), weight), [1e-6] * 4, Coding(1.0, 0))
    window = Window((kernel, kernel), pads=(pad,) * 4)
    conv = ops.QuantConv(
        "w", ("x",), "y", weight=weight, bias=r.bias, window=window, groups=1, padding=0, requantisation=r
    )
    tiling = CONV_BLOCKS.tile(conv, shape, Shape(1, size, size), Options())
    assert tiling.offset_unit * tiling.channel_offset * shape.channels <= tiling.scratch_floats


def test_ranges_are_found_before_and_after_a_sum_of_two_convolutions(tmp_path):
    """ONNX Runtime's optimiser makes one operator of convolution, sum and ReLU, and loses the tensor between them."""
    net = Net(3, 8, 8)
    first = relu(net, net.conv("input", net.weights(39, 3, 3, 3), **SAME))
    left = net.conv(first, net.weights(110, 39, 3, 3), **SAME)
    right = net.conv(first, net.weights(110, 39, 1, 1), kernel_shape=(1, 1))
    summed = relu(net, net.add("Add", left, right))
    images = net.images(4)
    path = net.save(tmp_path / "model.onnx", summed)
    found = ranges(onnx.load(path), [left, summed], images)
    answers = {summed: float_answers(path, images)}
    answers[left] = float_answers(net.save(tmp_path / "left.onnx", left), images)
    for name, values in answers.items():
        assert found[name] == pytest.approx((values.min(), values.max()), rel=1e-5)
