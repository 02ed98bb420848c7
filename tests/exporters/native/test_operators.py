"""Operators other than plain convolutions, and what is fused, against ONNX Runtime."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest

from robust_edge_exporters.native import Options
from robust_edge_exporters.native.export import export_native
from robust_edge_exporters.native.geometry import Shape
from robust_edge_exporters.native.importer import import_onnx
from robust_edge_exporters.native.passes import optimise
from robust_edge_runtimes.core.errors import ExportError
from robust_edge_runtimes.formats.native.engine import Network
from tests.exporters.native.networks import Net, answers, build, reference, relative_error

POOLS = [
    {"kernel_shape": (2, 2), "strides": (2, 2)},
    {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)},
    {"kernel_shape": (3, 2), "strides": (2, 1), "pads": (1, 0, 0, 1), "ceil_mode": 1},
    {"kernel_shape": (3, 3), "strides": (1, 1), "auto_pad": "SAME_UPPER"},
]


def scalar(net, value):
    return net.constant(np.array(value, np.float32))


def per_channel(net, channels):
    return net.constant(net.vector(channels).reshape(1, channels, 1, 1) + 3)


def unary(net, source):
    """Each element-wise function, alone and behind a convolution."""
    yield net.add("Relu", source)
    yield net.add("Clip", source, scalar(net, -0.2), scalar(net, 0.3))
    yield net.add("Clip", source, "", scalar(net, 0.3))
    yield net.add("LeakyRelu", source, alpha=0.2)
    yield net.add("Sigmoid", source)
    yield net.add("HardSwish", source)
    yield net.add("Identity", source)


def everything(net):
    """One output for each operator and form of it."""
    centred = net.add("Sub", "input", scalar(net, 0.5))
    conv = net.conv(centred, net.weights(5, 3, 3, 3, density=0.3), pads=(1, 1, 1, 1))
    for source in (centred, conv):
        yield from unary(net, source)
    wide = net.conv(net.add("Relu", conv), net.weights(5, 5, 3, 3, density=0.2), pads=(1, 1, 1, 1))
    for function in ("LeakyRelu", "Sigmoid", "HardSwish"):
        yield net.add(function, net.conv(conv, net.weights(8, 5, 3, 3, density=0.2), pads=(1, 1, 1, 1)))
        yield net.add(function, net.conv(conv, net.weights(8, 5, 3, 3)))
        yield net.add(function, net.conv(conv, net.weights(5, 1, 3, 3), pads=(1, 1, 1, 1), group=5))
    yield net.add("Add", conv, wide)
    yield net.add("Relu", net.add("Add", net.conv(wide, net.weights(5, 5, 1, 1)), conv))
    yield net.add("Add", net.conv(wide, net.weights(5, 1, 3, 3), pads=(1, 1, 1, 1), group=5), conv)
    yield net.add("Mul", conv, wide)
    gate = net.add("Sigmoid", net.conv(net.add("GlobalAveragePool", conv), net.weights(5, 5, 1, 1)))
    yield net.add("Mul", gate, conv)
    yield net.add("Add", conv, gate)
    for kind in ("Add", "Sub", "Mul", "Div"):
        yield net.add("Relu", net.add(kind, conv, per_channel(net, 5)))
    yield net.add("Sub", per_channel(net, 5), conv)
    statistics = [net.constant(np.abs(net.vector(5)) + 0.5) for _ in range(4)]
    yield net.add("BatchNormalization", net.add("Relu", conv), *statistics, epsilon=1e-3)
    yield net.add("BatchNormalization", net.conv(conv, net.weights(5, 5, 3, 3)), *statistics)
    for kind in ("MaxPool", "AveragePool"):
        for attributes in POOLS:
            yield net.add(kind, conv, **attributes)
    yield net.add("AveragePool", conv, kernel_shape=(3, 3), pads=(1, 1, 1, 1), count_include_pad=1)
    yield net.add("MaxPool", conv, kernel_shape=(2, 2), dilations=(2, 2))
    yield net.add("ReduceMean", conv, net.constant(np.array([2, 3])), keepdims=1)
    yield net.add("Concat", conv, wide, net.add("Relu", conv), axis=1)
    vector = net.add("ReduceMean", wide, net.constant(np.array([-1, -2])), keepdims=0)
    yield net.add("Relu", vector)
    yield net.add("Concat", vector, vector, axis=1)
    flat = net.add("Reshape", conv, net.constant(np.array([0, -1])))
    features = int(5 * np.prod(net.shape[1:]))
    bias = net.constant(net.vector(7))
    yield net.add("Gemm", flat, net.constant(net.weights(7, features)), bias, transB=1, alpha=0.5, beta=2.0)
    yield net.add("Sigmoid", net.add("Gemm", flat, net.constant(net.weights(features, 7, density=0.1)), bias))
    yield net.add("MatMul", vector, net.constant(net.weights(5, 9)))


@pytest.mark.parametrize("plane", [(8, 8), (11, 6)], ids=str)
def test_each_operator_matches_onnx_runtime(plane, tmp_path):
    net = Net(3, *plane)
    path = net.save(tmp_path / "model.onnx", *everything(net))
    images = net.images(6)
    export_native(path, tmp_path)
    for threads in (1, 3):
        assert relative_error(answers(tmp_path, images, threads=threads), reference(path, images)) < 1e-5


def kinds(net, path, *outputs):
    """Operators that are left of the graph after all passes."""
    graph = optimise(import_onnx(net.save(path, *outputs)))
    return [type(op).__name__ for op in graph.ops]


def test_a_residual_block_is_two_convolutions(tmp_path):
    net = Net(4, 8, 8)
    first = net.add("Relu", net.conv("input", net.weights(4, 4, 3, 3), pads=(1, 1, 1, 1)))
    second = net.conv(first, net.weights(4, 4, 3, 3), pads=(1, 1, 1, 1))
    statistics = [net.constant(np.abs(net.vector(4))) for _ in range(4)]
    block = net.add("Relu", net.add("Add", net.add("BatchNormalization", second, *statistics), "input"))
    assert kinds(net, tmp_path / "model.onnx", block) == ["Conv", "Conv", "Flatten"]


def test_normalisation_is_one_operator(tmp_path):
    net = Net(3, 8, 8)
    scaled = net.add("Div", net.add("Sub", "input", per_channel(net, 3)), per_channel(net, 3))
    conv = net.conv(scaled, net.weights(4, 3, 3, 3), pads=(1, 1, 1, 1))
    assert kinds(net, tmp_path / "model.onnx", conv) == ["Affine", "Conv", "Flatten"]


def test_a_convolution_that_two_read_keeps_its_own_result(tmp_path):
    net = Net(4, 8, 8)
    conv = net.conv("input", net.weights(4, 4, 3, 3), pads=(1, 1, 1, 1))
    assert (
        kinds(net, tmp_path / "model.onnx", net.add("Relu", conv), net.add("Add", conv, "input")).count("Activate") == 1
    )


def test_dead_branches_are_dropped(tmp_path):
    net = Net(4, 8, 8)
    net.conv("input", net.weights(4, 4, 3, 3))
    assert kinds(net, tmp_path / "model.onnx", net.add("Relu", "input")) == ["Activate", "Flatten"]


def vectors(net, plane):
    """Scales and shifts by feature that no matrix before them takes in."""
    flat = net.add("Flatten", "input")
    statistics = [net.constant(np.abs(net.vector(7)) + 0.5) for _ in range(4)]
    matrix = net.add("Gemm", flat, net.constant(net.weights(3 * plane * plane, 7)), net.constant(net.vector(7)))
    mean = net.add("ReduceMean", "input", net.constant(np.array([2, 3])), keepdims=0)
    return (
        net.add("BatchNormalization", net.add("Relu", matrix), *statistics),
        net.add("Sigmoid", net.add("Mul", mean, net.constant(net.vector(3)))),
        net.add("Relu", net.add("Sub", flat, net.constant(net.vector(3 * plane * plane)))),
    )


@pytest.mark.parametrize("plane", [4, 5])
def test_scales_by_feature_match_onnx_runtime(plane, tmp_path):
    net = Net(3, plane, plane)
    path, images = net.save(tmp_path / "model.onnx", *vectors(net, plane)), net.images(6)
    export_native(path, tmp_path)
    for threads in (1, 3):
        assert relative_error(answers(tmp_path, images, threads=threads), reference(path, images)) < 1e-5


@pytest.mark.parametrize("high", [np.float32(np.inf), np.array([0.5], np.float32)])
def test_bounds_may_be_infinite_or_of_one_element(high, tmp_path):
    net = Net(3, 4, 4)
    clipped, images = net.add("Clip", "input", net.constant(np.float32(0.2)), net.constant(high)), net.images(2)
    path = net.save(tmp_path / "model.onnx", clipped)
    export_native(path, tmp_path)
    assert np.array_equal(answers(tmp_path, images), reference(path, images))


@pytest.mark.parametrize(("height", "width"), [(10, 9), (16, 16), (5, 32)])
def test_an_image_that_is_no_number_spoils_no_other(tmp_path, height, width):
    """Neither those of its batch nor those of a later call, whichever operator's output is convolved in place."""
    net = Net(4, height, width)
    wide = net.add("Relu", net.conv("input", net.weights(19, 4, 3, 3, density=0.4), pads=(1, 1, 1, 1)))
    pooled = net.add("MaxPool", wide, kernel_shape=(3, 3), pads=(1, 1, 1, 1))
    again = net.conv(pooled, net.weights(6, 19, 3, 3, density=0.4), pads=(1, 1, 1, 1))
    both = net.add("Concat", again, "input", axis=1)
    deep = net.add("Relu", net.conv(both, net.weights(19, 10, 3, 3, density=0.4), pads=(1, 1, 1, 1)))
    flat = net.add("Flatten", net.add("GlobalAveragePool", deep))
    hidden = net.add("Relu", net.add("Gemm", flat, net.constant(net.weights(19, 10)), net.constant(net.vector(10))))
    path = net.save(tmp_path / "model.onnx", net.add("Gemm", hidden, net.constant(net.weights(10, 5))))
    export_native(path, tmp_path)
    images = net.images(7)
    network = Network(build(tmp_path), tmp_path / "weights.bin", threads=2)
    expected = network.infer(images)
    for bad in (np.nan, np.inf):
        mixed = images.copy()
        mixed[[0, 2, 5]] = bad
        assert np.array_equal(network.infer(mixed)[[1, 3, 4, 6]], expected[[1, 3, 4, 6]])
        network.infer(np.full_like(images, bad))
        assert np.array_equal(network.infer(images[:1]), expected[:1])
    network.close()


def test_taps_that_lie_thousands_of_pixels_apart(tmp_path):
    """They are packed pixel by pixel."""
    net = Net(1, 2, 5000)
    far = net.conv("input", net.weights(2, 1, 1, 3), pads=(0, 3000, 0, 3000), dilations=(1, 3000))
    path, images = net.save(tmp_path / "model.onnx", far), net.images(2)
    export_native(path, tmp_path)
    assert " .masks = NO_TENSOR" in (tmp_path / "model.c").read_text()
    assert relative_error(answers(tmp_path, images), reference(path, images)) < 1e-5


def test_taps_that_lie_thousands_of_rows_apart(tmp_path):
    """Offsets count units where rows are whole units; else they would not reach."""
    for width in (32, 33):
        net = Net(2, 3000, width)
        far = net.conv("input", net.weights(2, 2, 3, 3), pads=(2000, 1, 2000, 1), dilations=(2000, 1))
        path, images = net.save(tmp_path / "model.onnx", far), net.images(1)
        if width == 32:
            export_native(path, tmp_path)
            assert relative_error(answers(tmp_path, images), reference(path, images)) < 1e-5
        else:
            with pytest.raises(ExportError, match="too wide for the sparse engine"):
                export_native(path, tmp_path / "out")


def test_a_long_matrix_is_dense_even_where_sparse_is_forced(tmp_path):
    net = Net(2, 190, 190)
    matrix = net.constant(net.weights(2 * 190 * 190, 3, density=0.1))
    path = net.save(tmp_path / "model.onnx", net.add("MatMul", net.add("Flatten", "input"), matrix))
    export = export_native(path, tmp_path, options=Options(kernel="sparse"))
    assert [layer.kernel for layer in export.layers] == ["dense"]


def test_a_network_deeper_than_the_call_stack_is_fused(tmp_path):
    net, last = Net(1, 4, 4), "input"
    for _ in range(sys.getrecursionlimit() + 1):
        last = net.add("Mul", last, net.constant(np.float32(1)))
    assert kinds(net, tmp_path / "model.onnx", last) == ["Affine", "Flatten"]


def test_shapes_count_elements():
    assert (Shape(3, 4, 5).pixels, Shape(3, 4, 5).floats) == (20, 60)


@pytest.mark.parametrize(("width", "density"), [(4, 1.0), (16, 1.0), (4, 0.3), (16, 0.3)])
def test_nothing_pruned_is_dense(width, density, tmp_path):
    net = Net(16, width, width)
    path = net.save(tmp_path / "model.onnx", net.conv("input", net.weights(16, 16, 3, 3, density=density)))
    (layer,) = export_native(path, tmp_path / "out").layers
    assert (layer.kernel == "dense") == (density == 1)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (9, 32)])
@pytest.mark.parametrize(("rows", "pads"), [(2, (0, 1, 1, 1)), (3, (1, 1, 0, 1)), (3, (0, 1, 2, 1)), (1, (1, 1, 0, 1))])
def test_rows_beyond_a_plane_are_zeros_wherever_padding_is(tmp_path, height, width, rows, pads):
    """Planes that are read in place lie where others lay before."""
    net = Net(4, 2 * height, 2 * width)
    small = net.add("MaxPool", "input", kernel_shape=(2, 2), strides=(2, 2))
    mixed = net.add("Relu", net.conv(small, net.weights(9, 4, 1, 1), pads=(0, 0, 0, 0)))
    last = net.conv(mixed, net.weights(5, 9, rows, 3, density=0.4), pads=pads)
    path, images = net.save(tmp_path / "model.onnx", last), net.images(3)
    export = export_native(path, tmp_path, options=Options(images=2))
    assert export.layers[-1].kernel == "columns"
    for threads in (1, 12):
        assert relative_error(answers(tmp_path, images, threads=threads), reference(path, images)) < 1e-5


def test_operators_are_counted_behind_a_concatenation(tmp_path):
    """Profiles find a layer by its number."""
    net = Net(3, 6, 6)
    both = net.add("Concat", net.conv("input", net.weights(2, 3, 1, 1)), "input", axis=1)
    path = net.save(tmp_path / "model.onnx", net.conv(both, net.weights(4, 5, 1, 1)))
    number = export_native(path, tmp_path).layers[-1].operator_index
    network = (tmp_path / "model.c").read_text().split("static void network")[1]
    assert re.search(rf"conv_\w+\(j, &layer2\);\n    end_operator\(pool, j->thread, {number}\);", network)


RESIDUALS = [
    (6, 16, 16, {}, "columns"),
    (6, 8, 8, {}, "columns"),
    (16, 4, 4, {}, "taps"),
    (16, 5, 9, {}, "taps"),
    (6, 10, 11, {}, "sparse"),
    (6, 24, 14, {}, "strips"),
    (6, 2, 1030, {}, "strips"),
    (8, 12, 12, {"group": 2}, "strips"),
    (16, 7, 7, {}, "strips"),
    (8, 6, 6, {"group": 2}, "strips"),
    (6, 9, 9, {"group": 6}, "depthwise"),
    (6, 33, 40, {"group": 6}, "depthwise_rows"),
    (6, 8, 8, {"density": 1.0}, "dense"),
    (6, 10, 11, {"density": 1.0}, "dense"),
]


@pytest.mark.parametrize(("channels", "height", "width", "options", "kernel"), RESIDUALS)
def test_sums_take_the_place_of_the_residual(tmp_path, channels, height, width, options, kernel):
    """But not of one that is the convolution's own input, or that another operator reads later."""
    net = Net(channels, height, width)
    density, group = options.get("density", 0.4), options.get("group", 1)

    def conv(source):
        weight = net.weights(channels, channels // group, 3, 3, density=density)
        return net.conv(source, weight, pads=(1, 1, 1, 1), group=group)

    first = net.add("Relu", conv("input"))
    alone = net.add("Relu", net.add("Add", conv(first), "input"))
    own = net.add("Add", conv(alone), alone)
    again = net.add("LeakyRelu", net.add("Add", conv(own), first))
    path, images = net.save(tmp_path / "model.onnx", net.add("Add", again, first)), net.images(5)
    export = export_native(path, tmp_path, options=Options(images=2, block_bytes=4096))
    assert {layer.kernel for layer in export.layers} == {kernel}
    places = re.findall(r"\.out = \{(\d+),.*\.residual = (\d+)", (tmp_path / "model.c").read_text())
    assert [out == residual for out, residual in places] == [width < 1030, False, False]
    for threads in (1, 3):
        assert relative_error(answers(tmp_path, images, threads=threads), reference(path, images)) < 1e-5


def test_a_residual_is_added_once_where_small_planes_take_several_blocks(tmp_path):
    """Phases of 300 channels of 64 floats are split in two blocks."""
    net = Net(300, 8, 8)
    residual = net.conv("input", net.weights(7, 300, 1, 1, density=0.3), strides=(2, 2))
    weight = net.weights(7, 300, 3, 3, density=0.3)
    summed = net.add("Add", net.conv("input", weight, pads=(1, 1, 1, 1), strides=(2, 2)), residual)
    path, images = net.save(tmp_path / "model.onnx", net.add("Relu", summed)), net.images(3)
    export = export_native(path, tmp_path)
    assert [layer.kernel for layer in export.layers] == ["taps", "taps"]
    assert relative_error(answers(tmp_path, images), reference(path, images)) < 1e-5


def test_layers_of_different_strides_have_their_own_masks(tmp_path):
    """Which pixels of a row are inside the plane depends on the stride, too."""
    net = Net(4, 600, 2)
    one = net.conv("input", net.weights(4, 1, 3, 3), group=4, pads=(1, 1, 1, 1))
    two = net.conv("input", net.weights(4, 1, 3, 3), group=4, pads=(1, 1, 1, 2), strides=(2, 2))
    path, images = net.save(tmp_path / "model.onnx", one, two), net.images(2)
    export_native(path, tmp_path)
    assert relative_error(answers(tmp_path, images), reference(path, images)) < 1e-5
