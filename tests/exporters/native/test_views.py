"""Operators that move elements, and those that read tensors in another order, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

from robust_edge_exporters.native import Options, export_native
from robust_edge_exporters.native.geometry import Shape, layout
from robust_edge_exporters.native.importer import import_onnx
from robust_edge_exporters.native.passes import optimise
from robust_edge_exporters.native.views import View, image_index, tables_of
from tests.exporters.native.networks import Net, answers, reference, relative_error


def integers(net, *values):
    return net.constant(np.array(values, np.int64))


def reshape(net, source, *dims):
    return net.add("Reshape", source, integers(net, *dims))


def compare(net, folder, *outputs, images=5, opset=18):
    """The compiled network computes what ONNX Runtime does, with one thread and with three."""
    path, batch = net.save(folder / "model.onnx", *outputs, opset=opset), net.images(images)
    export = export_native(path, folder, options=Options(images=2))
    for threads in (1, 3):
        assert relative_error(answers(folder, batch, threads=threads), reference(path, batch)) < 1e-5
    return export


def moved(net, x):
    """One output for each way to move the elements of x, (N, 8, H, W)."""
    h, w = net.shape[1:]
    yield net.add("Transpose", x, perm=(0, 2, 3, 1))
    yield net.add("Transpose", x, perm=(0, 3, 2, 1))
    yield reshape(net, x, 0, 4, 2 * h, w)
    yield net.add(
        "Transpose", net.add("Squeeze", net.add("Unsqueeze", x, integers(net, 2)), integers(net, 2)), perm=(0, 1, 3, 2)
    )
    for mode in ("DCR", "CRD"):
        yield net.add("DepthToSpace", x, blocksize=2, mode=mode)
    yield net.add("SpaceToDepth", x, blocksize=2)
    yield from (net.add("Slice", x, *(integers(net, *k) for k in part)) for part in (
        ((1, 2), (7, 4), (1, 3)), ((-1,), (-1000,), (3,), (-1,)), ((0, 1), (h, w), (2, 3), (2, 3)),
    ))  # fmt: skip
    yield net.add("Gather", x, integers(net, 7, 0, 0, 3), axis=1)
    yield net.add("Expand", net.add("ReduceMean", x, integers(net, 1)), integers(net, 1, 3, h, w))
    for pads in ((0, 0, 1, 2, 0, 0, 3, 1), (0, 2, 0, 0, 0, 1, -1, -2)):
        for mode in ("constant", "reflect", "edge"):
            if mode == "constant" or min(pads) == 0:
                yield net.add("Pad", x, integers(net, *pads), net.constant(np.float32(0.7)), mode=mode)


@pytest.mark.parametrize("plane", [(8, 16), (4, 6)], ids=str)
def test_moved_elements_match_onnx_runtime(plane, tmp_path):
    net = Net(8, *plane)
    x = net.conv("input", net.weights(8, 8, 1, 1))
    first, *others = moved(net, x)
    halves = [net.name("half") for _ in range(2)]
    net.add("Split", x, axis=1, num_outputs=2)
    net.nodes[-1].output[:] = halves
    behind = [net.add("Relu", first), net.add("Add", first, net.constant(net.vector(8)))]
    shuffled = net.add("Transpose", reshape(net, x, 0, 2, 4, *plane), perm=(0, 2, 1, 3, 4))
    shuffled = net.add("LeakyRelu", reshape(net, shuffled, 0, 8, *plane))
    behind += [shuffled, net.conv(shuffled, net.weights(8, 2, 3, 3, density=0.5), group=4)]
    compare(net, tmp_path, first, *others, *behind, net.add("Concat", halves[1], shuffled, halves[0], axis=1))


def test_operators_of_channels_last_images_copy_nothing(tmp_path):
    """A block of ConvNeXt: normalise, two matrices, residual."""
    net = Net(6, 9, 7)
    last = net.add(
        "Transpose", net.conv("input", net.weights(6, 1, 3, 3), group=6, pads=(1, 1, 1, 1)), perm=(0, 2, 3, 1)
    )
    last = net.add("LayerNormalization", last, net.constant(net.vector(6)), net.constant(net.vector(6)), axis=-1)
    wide = net.add(
        "Add", net.add("MatMul", last, net.constant(net.weights(6, 12, density=0.5))), net.constant(net.vector(12))
    )
    erf = net.add("Erf", net.add("Div", wide, net.constant(np.float32(2**0.5))))
    half = net.add("Mul", net.constant(np.float32(0.5)), net.add("Add", erf, net.constant(np.float32(1))))
    narrow = net.add("MatMul", net.add("Mul", wide, half), net.constant(net.weights(12, 6)))
    scaled = net.add(
        "Mul", net.add("Transpose", narrow, perm=(0, 3, 1, 2)), net.constant(net.vector(6).reshape(6, 1, 1))
    )
    path = net.save(tmp_path / "model.onnx", net.add("Add", scaled, "input"))
    kinds = [type(op).__name__ for op in optimise(import_onnx(path)).ops]
    assert kinds == ["Conv", "LayerNorm", "Conv", "Gelu", "Conv", "Flatten"]
    compare(net, tmp_path, net.nodes[-2].output[0])


def test_shapes_that_depend_on_the_batch(tmp_path):
    """Dimensions that the file computes, and the gather as which PyTorch writes a mean over channels-last images."""
    net = Net(6, 4, 5)
    dims = net.add("Shape", "input", start=0, end=2)
    flat = net.add("Reshape", "input", net.add("Concat", dims, integers(net, 20), axis=0))
    mean = reshape(net, net.add("ReduceMean", "input", integers(net, 2, 3)), -1)
    count = net.add("Squeeze", net.add("Shape", "input", start=0, end=1))
    rows = net.add("Mul", net.add("Range", integers_0(net, 0), count, integers_0(net, 1)), integers_0(net, 6))
    picked = net.add("Add", net.add("Unsqueeze", rows, integers(net, 1)), net.constant(np.arange(6).reshape(1, 6)))
    compare(net, tmp_path, net.add("ReduceMean", flat, integers(net, 2)), net.add("Gather", mean, picked, axis=0))


def integers_0(net, value):
    return net.constant(np.array(value, np.int64))


def test_images_of_one_row(tmp_path):
    """One-dimensional convolutions, pools and transposed convolutions, of (N, C, L)."""
    net = Net(4, 6, 5)
    x = reshape(net, "input", 0, 4, 30)
    y = net.add("Relu", net.conv(x, net.weights(6, 4, 3), pads=(1, 1), strides=(2,)))
    statistics = [net.constant(np.abs(net.vector(6)) + 0.5) for _ in range(4)]
    z = net.add("BatchNormalization", net.add("MaxPool", y, kernel_shape=(2,), strides=(2,)), *statistics)
    back = net.add("ConvTranspose", z, net.constant(net.weights(6, 3, 4)), strides=(2,), pads=(1, 1))
    gate = net.add("Transpose", net.add("ReduceMean", x, integers(net, 2)), perm=(0, 2, 1))
    gate = net.add("Sigmoid", net.add("Transpose", net.conv(gate, net.weights(1, 1, 3), pads=(1, 1)), perm=(0, 2, 1)))
    narrow = net.add("AveragePool", net.add("Add", y, y), kernel_shape=(3,), strides=(3,))
    compare(
        net,
        tmp_path,
        y,
        z,
        back,
        net.add("Mul", x, gate),
        narrow,
        net.add("Resize", y, "", net.constant(np.float32([1, 1, 1.4])), mode="linear"),
    )


def test_attention_over_channels_and_pixels(tmp_path):
    """The gates of CBAM: mean and maximum over channels, and over pixels."""
    net = Net(5, 6, 7)
    both = net.add(
        "Concat", *(net.add(kind, "input", integers(net, 1)) for kind in ("ReduceMean", "ReduceMax")), axis=1
    )
    gate = net.add("Sigmoid", net.conv(both, net.weights(1, 2, 3, 3), pads=(1, 1, 1, 1)))
    vector = net.add("Squeeze", net.add("GlobalMaxPool", "input"))
    hidden = net.add("Relu", net.add("Gemm", vector, net.constant(net.weights(5, 5)), net.constant(net.vector(5))))
    compare(
        net,
        tmp_path,
        net.add("Mul", "input", gate),
        net.add("Mul", net.add("Unsqueeze", hidden, integers(net, 2, 3)), "input"),
    )


def test_elements_in_any_order(tmp_path):
    """Not one of channels, rows and columns: through a vector."""
    net = Net(6, 4, 5)
    mixed = reshape(net, net.add("Transpose", reshape(net, "input", 0, 5, 8, 3), perm=(0, 3, 1, 2)), 0, 6, 4, 5)
    compare(net, tmp_path, net.conv(mixed, net.weights(4, 6, 3, 3)))


def test_a_view_of_several_images_is_not_one_of_an_image():
    index = np.arange(24).reshape(2, 3, 4)
    assert np.array_equal(image_index(index, 12), index[0])
    assert image_index(index.transpose(1, 0, 2), 8) is None
    assert image_index(index[::-1], 12) is None
    assert not View("x", index[:, :2]).permutes(Shape(3, 1, 4))
    assert View("x", index.transpose(0, 2, 1)).permutes(Shape(3, 1, 4))


def test_positions_add_up_or_are_refused():
    index = np.arange(24).reshape(2, 3, 4)
    source = layout(Shape(2, 3, 4))
    tables = tables_of(index, source)
    assert tables.channels == (0, source.pitch)
    assert (tables.rows, tables.columns) == ((0, 4, 8), (0, 1, 2, 3))
    assert tables_of(np.pad(index, 1, constant_values=-1), source).rows == (None, 0, 4, 8, None)
    assert tables_of(np.full((1, 2, 1), -1), source).rows == (None, None)
    swapped = index.copy()
    swapped[0, 0, 0], swapped[1, 2, 3] = 23, 0
    assert tables_of(swapped, source) is None
