"""Activations, normalisations, resizing and transposed convolutions, against ONNX Runtime."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest

from robust_edge_exporters.native import export_native, unsupported
from robust_edge_exporters.native.importer import import_onnx
from robust_edge_exporters.native.passes import optimise
from tests.exporters.native.networks import Net, answers, reference, relative_error
from tests.exporters.native.test_operators import scalar
from tests.exporters.native.test_views import compare, integers, reshape

PLANES = [(8, 8), (5, 7)]


@pytest.mark.parametrize("plane", PLANES, ids=str)
def test_activations(plane, tmp_path):
    """Of images and of vectors, far from zero too."""
    net = Net(5, *plane)
    image = net.add("Mul", net.add("Sub", "input", net.constant(np.float32(0.5))), net.constant(np.float32(30)))
    image = net.add("Relu", net.add("Add", image, net.constant(np.float32(20))))
    image = net.add("Sub", image, net.constant(np.float32(20)))
    vector = net.add("ReduceMean", image, integers(net, 2, 3), keepdims=0)
    outputs = []
    for x, dims in ((image, (5, 1, 1)), (vector, (5,))):
        outputs += [net.add(kind, x) for kind in ("Erf", "Gelu", "HardSigmoid")]
        outputs += [net.add("Gelu", x, approximate="tanh"), net.add("HardSigmoid", x, alpha=1 / 6)]
        outputs += [
            net.add("Mul", net.add("Sigmoid", x), x),
            net.add("PRelu", x, net.constant(net.vector(5).reshape(dims))),
        ]
        outputs += [net.add("PRelu", x, net.constant(np.float32([0.3])))]
        outputs += [net.add(kind, x) for kind in ("Elu", "Selu", "Celu", "Softplus", "Mish", "Tanh")]
        outputs += [net.add("Elu", x, alpha=0.4), net.add("Celu", x, alpha=2.5), net.add("LeakyRelu", x, alpha=-2.0)]
        outputs += [net.add("Max", x, scalar(net, -3)), net.add("Min", scalar(net, 4), x)]
    compare(net, tmp_path, *outputs, opset=20)


def test_softplus_as_torch_writes_it(tmp_path):
    """A beta of 1 and of 2; another function under such a condition is refused."""
    net, outputs = Net(3, 4, 4), []
    x = net.add("Mul", net.add("Sub", "input", scalar(net, 0.5)), scalar(net, 60))
    for beta in (1, 2):
        scaled = net.add("Mul", x, scalar(net, beta)) if beta != 1 else x
        soft = net.add("Softplus", scaled)
        soft = net.add("Div", soft, scalar(net, beta)) if beta != 1 else soft
        outputs.append(net.add("Where", net.add("Greater", scaled, scalar(net, 20)), x, soft))
    compare(net, tmp_path, *outputs)
    other = net.add("Where", net.add("Greater", x, scalar(net, 20)), x, net.add("Tanh", x))
    (error,) = unsupported(onnx.load(net.save(tmp_path / "other.onnx", other)))
    assert "only softplus" in str(error)


def test_what_two_nodes_write_is_one_function(tmp_path):
    net = Net(3, 4, 4)
    x = net.add("Relu", "input")
    erf = net.add("Erf", net.add("Mul", x, net.constant(np.float32(2**-0.5))))
    gelu = net.add(
        "Mul", net.add("Mul", x, net.add("Add", erf, net.constant(np.float32(1)))), net.constant(np.float32(0.5))
    )
    silu = net.add("Mul", x, net.add("Sigmoid", x))
    gated = net.add("HardSigmoid", net.conv(x, net.weights(3, 3, 1, 1)))
    path = net.save(tmp_path / "model.onnx", gelu, silu, gated)
    kinds = [type(op).__name__ for op in optimise(import_onnx(path)).ops]
    assert kinds == ["Activate", "Gelu", "Silu", "Conv", "Flatten", "Flatten", "Flatten", "Concat"]


@pytest.mark.parametrize("plane", PLANES, ids=str)
def test_normalisations(plane, tmp_path):
    """Whose mean is far from zero; the scales behind a group normalisation are its own."""
    net = Net(6, *plane)
    x = net.add("Add", net.conv("input", net.weights(6, 6, 1, 1)), net.constant(np.float32(10)))
    ones, zeros = net.constant(np.ones(2, np.float32)), net.constant(np.zeros(2, np.float32))
    grouped = net.add("InstanceNormalization", reshape(net, x, 0, 2, -1), ones, zeros, epsilon=1e-4)
    grouped = net.add("Reshape", grouped, net.add("Shape", x))
    grouped = net.add("Mul", grouped, net.constant(net.vector(6).reshape(6, 1, 1)))
    vector = net.add("ReduceMean", x, integers(net, 2, 3), keepdims=0)
    scale, shift = net.constant(net.vector(6)), net.constant(net.vector(6))
    last = net.add("LayerNormalization", net.add("Transpose", x, perm=(0, 2, 3, 1)), scale, shift)
    tokens = net.add("Transpose", reshape(net, x, 0, 6, -1), perm=(0, 2, 1))
    outputs = (
        grouped,
        net.add("InstanceNormalization", x, scale, shift),
        net.add("LayerNormalization", vector, scale, epsilon=1e-3),
        net.add("Relu", net.add("Transpose", last, perm=(0, 3, 1, 2))),
        net.add("LayerNormalization", tokens, scale, shift, axis=-1),
    )
    path = net.save(tmp_path / "model.onnx", *outputs)
    assert [type(op).__name__ for op in optimise(import_onnx(path)).ops].count("Affine") == 0
    compare(net, tmp_path, *outputs)


RESIZES = [
    {"mode": "linear", "coordinate_transformation_mode": mode}
    for mode in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric")
] + [
    {"mode": "nearest", "coordinate_transformation_mode": mode, "nearest_mode": rounding}
    for mode in ("half_pixel", "asymmetric", "align_corners")
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
]  # fmt: skip


def test_resizing(tmp_path):
    net = Net(3, 6, 8)
    outputs = []
    for attributes in RESIZES:
        outputs.append(net.add("Resize", "input", "", net.constant(np.float32([1, 1, 2, 1.5])), **attributes))
        sizes = net.add("Concat", net.add("Shape", "input", end=2), integers(net, 4, 13), axis=0)
        outputs.append(net.add("Relu", net.add("Resize", "input", "", "", sizes, **attributes)))
    compare(net, tmp_path, *outputs)


GEOMETRIES = [
    {"strides": (s, s), "dilations": (d, d), "pads": (p, p, p, p), "output_padding": (o, o)}
    for s, d, p, o in [(1, 1, 0, 0), (1, 1, 1, 0), (2, 1, 0, 0), (2, 1, 1, 1), (3, 2, 2, 1), (2, 3, 2, 0), (4, 1, 0, 0)]
]


@pytest.mark.parametrize("group", [1, 2])
def test_transposed_convolutions(group, tmp_path):
    """Stored weights are the layer's own nonzeros, and it counts as many weights as it has."""
    net, counts = Net(4, 5, 6), []
    outputs = []
    for geometry, kernel in itertools.product(GEOMETRIES, [(2, 2), (3, 4)]):
        weight = net.weights(4, 3, *kernel, density=0.5)
        counts.append((weight.size, np.count_nonzero(weight)))
        more = {
            "output_padding": tuple(
                min(o, max(geometry["strides"][0], geometry["dilations"][0]) - 1) for o in geometry["output_padding"]
            )
        }
        name = net.constant(weight), net.constant(net.vector(3 * group))
        outputs.append(net.add("Relu", net.add("ConvTranspose", "input", *name, group=group, **geometry | more)))
    export = compare(net, tmp_path, *outputs)
    assert [(layer.weights, layer.nonzeros) for layer in export.layers] == counts


def test_reductions(tmp_path):
    net = Net(3, 4, 5)
    outputs = [
        net.add(kind, "input", integers(net, *axes), keepdims=keep)
        for kind in ("ReduceMean", "ReduceMax")
        for axes in ((2, 3), (-1,), (1,), (1, 2), (1, 2, 3))
        for keep in (0, 1)
        if keep or len(axes) == 2
    ]
    compare(net, tmp_path, *outputs)


def test_all_nodes_that_are_not_supported_are_listed(tmp_path):
    """Those behind one of them, too, and no others."""
    net = Net(3, 4, 4)
    x = net.add("Softsign", net.conv("input", net.weights(3, 3, 1, 1)))
    x = net.add("Relu", net.add("Pow", x, net.constant(np.float32(3))))
    path = net.save(tmp_path / "model.onnx", net.add("Softmax", net.add("MatMul", x, x), axis=-1))
    found = unsupported(onnx.load(path))
    assert [error.operator for error in found] == ["Softsign", "Pow", "MatMul", "Softmax"]
    assert "as in attention" in str(found[2])
    assert unsupported(onnx.load(Net(3, 4, 4).save(tmp_path / "flat.onnx", "input"))) == []


def test_constants_as_tensors(tmp_path):
    """Coordinates of the pixels beside those, a token beside features, and a value for each pixel."""
    net = Net(3, 4, 5)
    places = net.constant(np.stack(np.meshgrid(np.arange(5), np.arange(4))).astype(np.float32)[None])
    images = net.add("Concat", net.add("Shape", "input", end=1), integers(net, 2, 4, 5), axis=0)
    located = net.add("Concat", net.add("Expand", places, images), net.add("Relu", "input"), axis=1)
    vector = net.add("ReduceMean", "input", integers(net, 2, 3), keepdims=0)
    rows = net.add("Concat", net.add("Shape", "input", end=1), integers(net, 2), axis=0)
    token = net.add("Expand", net.constant(net.vector(2).reshape(1, 2)), rows)
    pixels = net.constant(net.vector(60).reshape(3, 4, 5))
    outputs = (net.add("Add", pixels, "input"), net.add("Relu", net.add("Mul", "input", pixels)))
    convolved = net.conv(located, net.weights(4, 5, 3, 3))
    compare(net, tmp_path, convolved, net.add("Concat", vector, token, axis=1), *outputs)


def test_pixels_that_are_gathered_or_masked(tmp_path):
    """As torch writes an adaptive pool, and the other way round."""
    net = Net(3, 4, 5)
    turned = net.add("Transpose", "input", perm=(2, 3, 0, 1))
    pixels = net.add("GatherND", turned, net.constant(np.array([[[0, 1], [3, -1]], [[2, 2], [1, 0]]])))
    pixels = net.add("Transpose", pixels, perm=(2, 3, 0, 1))
    mask = np.array([[True, False], [False, True]])
    masked = net.add("Where", net.constant(mask), scalar(net, 0.25), pixels)
    other = net.add("Where", net.constant(mask[:, :1]), pixels, scalar(net, -1))
    first = net.add("Gather", masked, net.constant(np.array(1)), axis=3)
    compare(
        net, tmp_path, masked, other, net.add("Add", first, net.add("Gather", other, net.constant(np.array(0)), axis=3))
    )


def test_what_is_found_only_in_the_plan_is_listed(tmp_path):
    net = Net(2, 3000, 33)
    far = net.conv("input", net.weights(2, 2, 3, 3), pads=(2000, 1, 2000, 1), dilations=(2000, 1))
    (error,) = unsupported(onnx.load(net.save(tmp_path / "model.onnx", far)))
    assert "too wide for the sparse engine" in str(error)


def test_a_nan_stays_one(tmp_path):
    """Through the approximations of exp and erf."""
    net = Net(1, 4, 4)
    outputs = [net.add("Mul", "input", net.add("Sigmoid", "input")), net.add("Erf", "input"), net.add("Gelu", "input")]
    outputs += [net.add(kind, "input") for kind in ("Elu", "Softplus", "Mish", "Tanh")]
    path = net.save(tmp_path / "model.onnx", *outputs, opset=20)
    export_native(path, tmp_path)
    images = np.linspace(-90, 90, 16, dtype=np.float32).reshape(1, 1, 4, 4)
    images[0, 0, 1, 2] = np.nan
    got, expected = answers(tmp_path, images), reference(path, images)
    assert np.array_equal(np.isnan(got), np.isnan(expected))
    assert relative_error(np.nan_to_num(got), np.nan_to_num(expected)) < 1e-6
