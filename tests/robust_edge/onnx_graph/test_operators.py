"""Every operator of an ONNX graph in torch against ONNX Runtime, and its gradient against finite differences."""

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx", reason="the graphs are written with onnx")
ort = pytest.importorskip("onnxruntime", reason="the oracle is onnxruntime")

from robust_edge.onnx_graph.error import GraphError  # noqa: E402
from robust_edge.onnx_graph.network import OnnxNetwork  # noqa: E402
from robust_edge.onnx_graph.operators import OPERATORS  # noqa: E402

RANDOM = np.random.default_rng(0)


def array(*shape, low=-1.0, high=1.0):
    return RANDOM.uniform(low, high, shape).astype(np.float32)


def integers(*values, kind=np.int64):
    return np.array(values, kind)


def graph(operator, constants, attributes, shape, *, opset=18):
    """One node on one input; what follows is averaged to (N, K) logits by whoever asks."""
    make, arrays = onnx.helper, onnx.numpy_helper
    names = ["images", *("" if value is None else f"c{i}" for i, value in enumerate(constants))]
    nodes = [make.make_node(operator, names, ["logits"], name="the_node", **attributes)]
    initializers = [arrays.from_array(value, f"c{i}") for i, value in enumerate(constants) if value is not None]
    kind = onnx.TensorProto.FLOAT
    ports = [make.make_tensor_value_info("images", kind, shape), make.make_tensor_value_info("logits", kind, None)]
    program = make.make_graph(nodes, "one", ports[:1], ports[1:], initializers)
    return make.make_model(program, opset_imports=[make.make_opsetid("", opset)], ir_version=8)


IMAGE, ROWS = (2, 3, 6, 5), (4, 6)
CASES = {
    "Add": ("Add", [array(1, 3, 1, 1)], {}, IMAGE),
    "Sub": ("Sub", [array(1, 3, 1, 1)], {}, IMAGE),
    "Mul": ("Mul", [array(6, 5)], {}, IMAGE),
    "Div": ("Div", [array(1, 3, 1, 1, low=0.5)], {}, IMAGE),
    "Relu": ("Relu", [], {}, IMAGE),
    "LeakyRelu": ("LeakyRelu", [], {"alpha": 0.2}, IMAGE),
    "Sigmoid": ("Sigmoid", [], {}, IMAGE),
    "Tanh": ("Tanh", [], {}, IMAGE),
    "HardSigmoid": ("HardSigmoid", [], {"alpha": 0.3, "beta": 0.4}, IMAGE),
    "HardSwish": ("HardSwish", [], {}, IMAGE),
    "Identity": ("Identity", [], {}, IMAGE),
    "Softmax": ("Softmax", [], {"axis": 1}, ROWS),
    "Clip": ("Clip", [np.float32(-0.5), np.float32(0.25)], {}, IMAGE),
    "Clip, one end": ("Clip", [None, np.float32(0.25)], {}, IMAGE),
    "Conv": ("Conv", [array(4, 3, 3, 3), array(4)], {"pads": [1, 1, 1, 1]}, IMAGE),
    "Conv, strided": ("Conv", [array(4, 3, 3, 2)], {"pads": [1, 0, 2, 1], "strides": [2, 1]}, IMAGE),
    "Conv, dilated": ("Conv", [array(4, 3, 2, 2), array(4)], {"dilations": [2, 3]}, IMAGE),
    "Conv, depthwise": ("Conv", [array(6, 1, 3, 3), array(6)], {"group": 3}, IMAGE),
    "Gemm": ("Gemm", [array(6, 5), array(5)], {"alpha": 0.5, "beta": 2.0}, ROWS),
    "Gemm, transposed": ("Gemm", [array(5, 6)], {"transB": 1}, ROWS),
    "MatMul": ("MatMul", [array(6, 5)], {}, ROWS),
    "GlobalAveragePool": ("GlobalAveragePool", [], {}, IMAGE),
    "AveragePool": ("AveragePool", [], {"kernel_shape": [2, 3], "strides": [2, 1]}, IMAGE),
    "AveragePool, padded": ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, IMAGE),
    "AveragePool, counting": (
        "AveragePool",
        [],
        {"kernel_shape": [3, 3], "pads": [1, 0, 1, 0], "count_include_pad": 1},
        IMAGE,
    ),
    "MaxPool": ("MaxPool", [], {"kernel_shape": [3, 2], "pads": [1, 0, 1, 0], "strides": [2, 2]}, IMAGE),
    "BatchNormalization": (
        "BatchNormalization",
        [array(3), array(3), array(3), array(3, low=0.5, high=2)],
        {"epsilon": 1e-3},
        IMAGE,
    ),
    "ReduceMean": ("ReduceMean", [integers(2, 3)], {"keepdims": 0}, IMAGE),
    "ReduceMean, all": ("ReduceMean", [], {}, IMAGE),
    "Reshape": ("Reshape", [integers(-1, 90)], {}, IMAGE),
    "Reshape, zero copies": ("Reshape", [integers(0, 3, -1)], {}, IMAGE),
    "Flatten": ("Flatten", [], {"axis": 2}, IMAGE),
    "Transpose": ("Transpose", [], {"perm": [0, 2, 3, 1]}, IMAGE),
    "Squeeze": ("Squeeze", [integers(1)], {}, (2, 1, 3)),
    "Unsqueeze": ("Unsqueeze", [integers(0, 3)], {}, ROWS),
    "Concat": ("Concat", [array(2, 1, 6, 5)], {"axis": 1}, IMAGE),
    "Pad": ("Pad", [integers(0, 0, 1, 2, 0, 0, 0, 1), np.float32(0.5)], {}, IMAGE),
}


def ours(program, images):
    network = OnnxNetwork(program)
    points = torch.from_numpy(images).requires_grad_(True)
    return network, points, network(points)


def theirs(program, images):
    session = ort.InferenceSession(program.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})[0]


@pytest.mark.parametrize("case", CASES)
def test_an_operator_gives_what_onnx_runtime_gives(case):
    program, images = graph(*CASES[case]), array(*CASES[case][3])
    _, points, result = ours(program, images)
    expected = theirs(program, images)
    assert tuple(result.shape) == expected.shape
    assert np.allclose(result.detach().numpy(), expected, atol=2e-6)
    weight = torch.from_numpy(array(*expected.shape))
    (gradient,) = torch.autograd.grad((result * weight).sum(), points)
    steps = np.random.default_rng(1).integers(0, images.size, 6)
    for index in steps:  # the middle of two values one ten-thousandth apart, by ONNX Runtime alone
        moved = [images.copy(), images.copy()]
        for image, sign in zip(moved, (1, -1), strict=True):
            image.ravel()[index] += np.float32(sign * 1e-3)
        rise = sum(s * (theirs(program, x) * weight.numpy()).sum() for x, s in zip(moved, (1, -1), strict=True))
        assert gradient.numpy().ravel()[index] == pytest.approx(rise / 2e-3, abs=5e-3)


def quantised(kind, zero, scale, axis=None):
    """Quantise and dequantise the input, per tensor or along an axis."""
    make, arrays = onnx.helper, onnx.numpy_helper
    options = {} if axis is None else {"axis": axis}
    nodes = [
        make.make_node("QuantizeLinear", ["images", "scale", "zero"], ["q"], **options),
        make.make_node("DequantizeLinear", ["q", "scale", "zero"], ["logits"], **options),
    ]
    initializers = [
        arrays.from_array(np.array(scale, np.float32), "scale"),
        arrays.from_array(np.array(zero, kind), "zero"),
    ]
    kind = onnx.TensorProto.FLOAT
    ports = [make.make_tensor_value_info(name, kind, [2, 3, 6, 5]) for name in ("images", "logits")]
    program = make.make_graph(nodes, "qdq", ports[:1], ports[1:], initializers)
    return make.make_model(program, opset_imports=[make.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(
    ("kind", "zero", "scale", "axis"),
    [
        (np.int8, 0, 0.006, None),
        (np.int8, -128, 0.005, None),
        (np.uint8, 100, 0.004, None),
        (np.int8, [0, 3, -7], [0.01, 0.002, 0.005], 1),
    ],
)
def test_eight_bits_round_as_onnx_runtime_does_and_pass_gradients_inside_the_range(kind, zero, scale, axis):
    program, images = quantised(kind, zero, scale, axis), array(*IMAGE)
    images.ravel()[:4] = np.float32(0.005) * np.array([0.5, 1.5, 2.5, -0.5], np.float32)  # halves go to even
    _, points, result = ours(program, images)
    expected = theirs(program, images)
    assert np.array_equal(result.detach().numpy(), expected)
    (gradient,) = torch.autograd.grad(result.sum(), points)
    shape = (1, -1, 1, 1)
    steps = images / np.reshape(np.float32(scale), shape) + np.reshape(np.float32(zero), shape)
    info = np.iinfo(kind)
    inside = (steps >= info.min) & (steps <= info.max)
    assert 0.05 < inside.mean() < 1
    assert np.allclose(gradient.numpy(), inside, atol=1e-6)


def test_a_cast_to_half_rounds_and_passes_the_gradient():
    program = graph("Cast", [], {"to": 10}, IMAGE)
    cast_back = onnx.helper.make_node("Cast", ["half"], ["logits"], to=1)
    program.graph.node[0].output[0] = "half"
    program.graph.node.append(cast_back)
    images = array(*IMAGE)
    _, points, result = ours(program, images)
    assert np.array_equal(result.detach().numpy(), images.astype(np.float16).astype(np.float32))
    assert torch.equal(torch.autograd.grad(result.sum(), points)[0], torch.ones(IMAGE))


def test_axes_stand_in_the_attribute_before_opset_18():
    program = graph("ReduceMean", [], {"axes": [2, 3], "keepdims": 1}, IMAGE, opset=13)
    images = array(*IMAGE)
    assert np.allclose(ours(program, images)[2].detach().numpy(), theirs(program, images), atol=1e-6)


@pytest.mark.parametrize(
    ("operator", "constants", "attributes", "says"),
    [
        ("Round", [], {}, "operator Round of node 'the_node'"),
        ("Conv", [array(4, 3, 3, 3)], {"auto_pad": "SAME_UPPER"}, "Conv of node 'the_node'.*SAME_UPPER"),
        ("AveragePool", [], {"kernel_shape": [2, 2], "ceil_mode": 1}, "ceil_mode = 1"),
        ("Cast", [], {"to": 7}, "to type 7"),
    ],
)
def test_what_is_not_covered_is_named(operator, constants, attributes, says):
    with pytest.raises(GraphError, match=says):
        ours(graph(operator, constants, attributes, IMAGE), array(*IMAGE))


def test_every_operator_has_a_case():
    here = {case[0] for case in CASES.values()}
    assert set(OPERATORS) - here == {"Cast", "Constant", "QuantizeLinear", "DequantizeLinear"}


def test_constants_are_computed_once_and_the_unused_forgotten():
    program = quantised(np.int8, 0, 0.01)
    weight = onnx.numpy_helper.from_array(RANDOM.integers(-99, 99, (3, 1, 1)).astype(np.int8), "weight")
    program.graph.initializer.append(weight)
    program.graph.node.extend(
        [
            onnx.helper.make_node("DequantizeLinear", ["weight", "scale", "zero"], ["w"]),
            onnx.helper.make_node("Mul", ["logits", "w"], ["out"]),
        ]
    )
    program.graph.output[0].name = "out"
    network, _, result = ours(program, images := array(*IMAGE))
    assert np.allclose(result.detach().numpy(), theirs(program, images), atol=1e-6)
    assert not any(buffer.dtype == torch.int8 and buffer.numel() > 1 for buffer in network.buffers())
