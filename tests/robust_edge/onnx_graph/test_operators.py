"""Every operator of an ONNX graph in torch against ONNX Runtime, and its gradient against finite differences."""

import numpy as np
import pytest
import torch
from packaging.version import Version

onnx = pytest.importorskip("onnx", reason="the graphs are written with onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="the oracle is onnxruntime")

from robust_edge.onnx_graph.error import GraphError  # noqa: E402
from robust_edge.onnx_graph.network import OnnxNetwork  # noqa: E402
from robust_edge.onnx_graph.operators.table import OPERATORS  # noqa: E402
from tests.robust_edge.onnx_graph.oracle import (  # noqa: E402
    IMAGE,
    RANDOM,
    ROWS,
    array,
    check,
    graph,
    integers,
    ours,
    theirs,
)
from tests.robust_edge.onnx_graph.texts import TEXTS  # noqa: E402

ELEMENTWISE = (
    "Acos", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Erf", "Exp", "GlobalAveragePool", "GlobalMaxPool",
    "HardSwish", "Identity", "Mish", "Neg", "Relu", "Selu", "Sigmoid", "Sin", "Sinh", "Softplus", "Softsign", "Tan",
    "Tanh",
)  # fmt: skip
REDUCTIONS = ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
POOLS = (
    {"kernel_shape": [2, 3], "strides": [2, 1]},
    {"kernel_shape": [3, 2], "pads": [1, 0, 1, 0], "strides": [2, 2]},
    {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "strides": [3, 3], "pads": [0, 1, 1, 0], "ceil_mode": 1},
    {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
)
CASES = {
    **{name: (name, [], {}, IMAGE) for name in ELEMENTWISE},
    **{f"Reduce{name}, axes": (f"Reduce{name}", [integers(-1, 1)], {"keepdims": 0}, IMAGE) for name in REDUCTIONS},
    **{f"Reduce{name}, all": (f"Reduce{name}", [], {}, IMAGE) for name in REDUCTIONS},
    **{f"Reduce{name}, old": (f"Reduce{name}", [], {"axes": [2, 3]}, IMAGE, 11) for name in REDUCTIONS},
    "Abs": ("Abs", [], {}, IMAGE),
    "Add": ("Add", [array(1, 3, 1, 1)], {}, IMAGE),
    "Sub": ("Sub", [array(1, 3, 1, 1)], {}, IMAGE),
    "Mul": ("Mul", [array(6, 5)], {}, IMAGE),
    "Div": ("Div", [array(1, 3, 1, 1, low=0.5)], {}, IMAGE),
    "Mod": ("Mod", [array(1, 3, 1, 1, low=0.5)], {"fmod": 1}, IMAGE),
    "Pow": ("Pow", [np.float32(2)], {}, IMAGE),
    "Pow, integer": ("Pow", [integers(3)], {}, IMAGE),
    "Min": ("Min", [array(6, 5), array(2, 1, 1, 1)], {}, IMAGE),
    "Max": ("Max", [array(6, 5), array(2, 1, 1, 1)], {}, IMAGE),
    "Sum": ("Sum", [array(6, 5), array(2, 1, 1, 1)], {}, IMAGE),
    "Mean": ("Mean", [array(6, 5), array(2, 1, 1, 1)], {}, IMAGE),
    "LeakyRelu": ("LeakyRelu", [], {"alpha": 0.2}, IMAGE),
    "PRelu": ("PRelu", [array(3, 1, 1)], {}, IMAGE),
    "Elu": ("Elu", [], {"alpha": 0.7}, IMAGE),
    "Celu": ("Celu", [], {"alpha": 0.7}, IMAGE),
    "ThresholdedRelu": ("ThresholdedRelu", [], {"alpha": 0.3}, IMAGE),
    "HardSigmoid": ("HardSigmoid", [], {"alpha": 0.3, "beta": 0.4}, IMAGE),
    "Gelu": ("Gelu", [], {}, IMAGE, 20),
    "Gelu, tanh": ("Gelu", [], {"approximate": "tanh"}, IMAGE, 20),
    "Softmax": ("Softmax", [], {"axis": 1}, ROWS),
    "Softmax, default": ("Softmax", [], {}, IMAGE),
    "Softmax, old": ("Softmax", [], {"axis": 2}, IMAGE, 11),
    "LogSoftmax": ("LogSoftmax", [], {"axis": 1}, IMAGE),
    "Clip": ("Clip", [np.float32(-0.5), np.float32(0.25)], {}, IMAGE),
    "Clip, one end": ("Clip", [None, np.float32(0.25)], {}, IMAGE),
    "Clip, old": ("Clip", [], {"min": -0.5, "max": 0.25}, IMAGE, 10),
    "Conv": ("Conv", [array(4, 3, 3, 3), array(4)], {"pads": [1, 1, 1, 1]}, IMAGE),
    "Conv, strided": ("Conv", [array(4, 3, 3, 2)], {"pads": [1, 0, 2, 1], "strides": [2, 1]}, IMAGE),
    "Conv, dilated": ("Conv", [array(4, 3, 2, 2), array(4)], {"dilations": [2, 3]}, IMAGE),
    "Conv, depthwise": ("Conv", [array(6, 1, 3, 3), array(6)], {"group": 3}, IMAGE),
    "Conv, same": ("Conv", [array(4, 3, 3, 2)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, IMAGE),
    "Conv, same lower": ("Conv", [array(4, 3, 2, 2)], {"auto_pad": "SAME_LOWER"}, IMAGE),
    "Conv, 1-D": ("Conv", [array(4, 3, 3), array(4)], {"pads": [2, 0], "strides": [2]}, (2, 3, 7)),
    "Conv, 3-D": ("Conv", [array(2, 3, 2, 3, 2)], {"pads": [1, 0, 0, 0, 1, 1]}, (1, 3, 4, 4, 3)),
    "ConvTranspose": ("ConvTranspose", [array(3, 4, 2, 2), array(4)], {"strides": [2, 2]}, IMAGE),
    "ConvTranspose, padded": (
        "ConvTranspose", [array(3, 2, 3, 3), array(6)],
        {"strides": [2, 3], "pads": [1, 0, 1, 2], "output_padding": [1, 2], "group": 3, "dilations": [1, 2]}, IMAGE,
    ),
    "ConvTranspose, shape": (
        "ConvTranspose", [array(3, 4, 3, 3)], {"strides": [2, 2], "output_shape": [12, 9], "auto_pad": "SAME_UPPER"},
        IMAGE,
    ),
    "ConvTranspose, same": ("ConvTranspose", [array(3, 4, 3, 3)], {"strides": [2, 2], "auto_pad": "SAME_LOWER"}, IMAGE),
    "ConvTranspose, 1-D": ("ConvTranspose", [array(3, 4, 3)], {"strides": [2], "pads": [1, 1]}, (2, 3, 7)),
    "Gemm": ("Gemm", [array(6, 5), array(5)], {"alpha": 0.5, "beta": 2.0}, ROWS),
    "Gemm, transposed": ("Gemm", [array(5, 6)], {"transB": 1}, ROWS),
    "MatMul": ("MatMul", [array(6, 5)], {}, ROWS),
    "MatMul, batched": ("MatMul", [array(3, 5, 4)], {}, IMAGE),
    "Einsum": ("Einsum", [array(3, 4)], {"equation": "nchw,ck->nkhw"}, IMAGE),
    **{
        f"{kind}, {i}": (kind, [], attributes, IMAGE)
        for kind in ("AveragePool", "MaxPool")
        for i, attributes in enumerate(POOLS)
    },
    **{
        f"AveragePool, counting {i}": ("AveragePool", [], {**attributes, "count_include_pad": 1}, IMAGE)
        for i, attributes in enumerate(POOLS)
    },
    "AveragePool, dilated": ("AveragePool", [], {"kernel_shape": [2, 2], "dilations": [2, 1]}, IMAGE, 19),
    "MaxPool, dilated": ("MaxPool", [], {"kernel_shape": [2, 2], "dilations": [2, 1], "pads": [1, 0, 0, 1]}, IMAGE),
    "MaxPool, 1-D": ("MaxPool", [], {"kernel_shape": [3], "strides": [2], "ceil_mode": 1}, (2, 3, 8)),
    "AveragePool, 1-D": ("AveragePool", [], {"kernel_shape": [3], "strides": [2], "ceil_mode": 1}, (2, 3, 8)),
    "BatchNormalization": (
        "BatchNormalization", [array(3), array(3), array(3), array(3, low=0.5, high=2)], {"epsilon": 1e-3}, IMAGE
    ),
    "InstanceNormalization": ("InstanceNormalization", [array(3), array(3)], {"epsilon": 1e-3}, IMAGE),
    "GroupNormalization": ("GroupNormalization", [array(6), array(6)], {"num_groups": 3}, (2, 6, 4, 3), 21),
    "GroupNormalization, old": ("GroupNormalization", [array(3), array(3)], {"num_groups": 3}, (2, 6, 4, 3), 18),
    "LayerNormalization": ("LayerNormalization", [array(5), array(5)], {"epsilon": 1e-3}, IMAGE),
    "LayerNormalization, two axes": ("LayerNormalization", [array(6, 5)], {"axis": -2}, IMAGE),
    "RMSNormalization": ("RMSNormalization", [array(5)], {"epsilon": 1e-3}, IMAGE, 23),
    "LRN": ("LRN", [], {"size": 3, "alpha": 0.5, "beta": 0.6, "bias": 1.5}, (2, 7, 3, 2)),
    "MeanVarianceNormalization": ("MeanVarianceNormalization", [], {"axes": [2, 3]}, IMAGE),
    "LpNormalization": ("LpNormalization", [], {"axis": 1, "p": 2}, IMAGE),
    "Reshape": ("Reshape", [integers(-1, 90)], {}, IMAGE),
    "Reshape, zero copies": ("Reshape", [integers(0, 3, -1)], {}, IMAGE),
    "Flatten": ("Flatten", [], {"axis": 2}, IMAGE),
    "Transpose": ("Transpose", [], {"perm": [0, 2, 3, 1]}, IMAGE),
    "Squeeze": ("Squeeze", [integers(1)], {}, (2, 1, 3)),
    "Squeeze, old": ("Squeeze", [], {"axes": [1]}, (2, 1, 3), 11),
    "Unsqueeze": ("Unsqueeze", [integers(0, 3)], {}, ROWS),
    "Concat": ("Concat", [array(2, 1, 6, 5)], {"axis": 1}, IMAGE),
    "Slice": ("Slice", [integers(1, -1), integers(99, -4), integers(2, 3), integers(2, -2)], {}, IMAGE),
    "Slice, plain": ("Slice", [integers(0, 1), integers(-1, 3)], {}, IMAGE),
    "Slice, old": ("Slice", [], {"starts": [1], "ends": [-1], "axes": [2]}, IMAGE, 9),
    "Gather": ("Gather", [integers(4, -1, 0, 4)], {"axis": 3}, IMAGE),
    "Gather, to a number": ("Gather", [np.int64(-1)], {}, (3,)),
    "Gather, scalar": ("Gather", [np.int64(2)], {"axis": 2}, IMAGE),
    "GatherND": ("GatherND", [integers(0, 1, -1, 0).reshape(2, 2)], {}, (2, 3, 4)),
    "GatherND, per image": ("GatherND", [integers(1, -1, 0, 2).reshape(2, 2, 1)], {"batch_dims": 1}, (2, 3, 4)),
    "GatherElements": ("GatherElements", [integers(0, -1, 2, 1).reshape(2, 2)], {"axis": 1}, (2, 3)),
    "Expand": ("Expand", [integers(4, 1, 3, 1)], {}, (2, 3, 1, 5)[1:]),
    "Tile": ("Tile", [integers(1, 2, 1, 3)], {}, IMAGE),
    "Trilu": ("Trilu", [np.int64(1)], {"upper": 0}, IMAGE),
    "DepthToSpace": ("DepthToSpace", [], {"blocksize": 2}, (2, 8, 3, 2)),
    "DepthToSpace, CRD": ("DepthToSpace", [], {"blocksize": 2, "mode": "CRD"}, (2, 8, 3, 2)),
    "SpaceToDepth": ("SpaceToDepth", [], {"blocksize": 2}, (2, 3, 4, 6)),
    "Pad": ("Pad", [integers(0, 0, 1, 2, 0, 0, 0, 1), np.float32(0.5)], {}, IMAGE),
    "Pad, negative": ("Pad", [integers(0, 0, -1, 2, 0, 0, 0, -1)], {}, IMAGE),
    "Pad, old": ("Pad", [], {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "value": 0.5}, IMAGE, 10),
    "Pad, axes": ("Pad", [integers(1, 2, 0, 1), np.float32(0.5), integers(-1, 2)], {}, IMAGE),
    "Pad, reflect": ("Pad", [integers(0, 0, 2, 3, 0, 0, 1, 2)], {"mode": "reflect"}, IMAGE),
    "Pad, edge": ("Pad", [integers(0, 0, 2, 3, 0, 0, 1, 2)], {"mode": "edge"}, IMAGE),
    "Pad, wrap": ("Pad", [integers(0, 0, 2, 3, 0, 0, 1, 2)], {"mode": "wrap"}, IMAGE, 19),
    **{
        f"Resize, {method} {coordinates} {factor}": (
            "Resize", [None, np.array([1, 1, factor, 1.6], np.float32)],
            {"mode": method, "coordinate_transformation_mode": coordinates}, IMAGE,
        )
        for method in ("nearest", "linear", "cubic")
        for coordinates in ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners")
        for factor in (2, 0.5)
    },
    **{
        f"Resize, nearest {rounding}": (
            "Resize", [None, None, integers(2, 3, 9, 4)],
            {"nearest_mode": rounding, "coordinate_transformation_mode": "half_pixel"}, IMAGE,
        )
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    },
    "Resize, symmetric": (
        "Resize", [None, None, integers(2, 3, 9, 4)],
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"}, IMAGE, 19,
    ),
    "Resize, axes": ("Resize", [None, None, integers(9, 4)], {"mode": "linear", "axes": [2, 3]}, IMAGE),
    "Resize, excluding": ("Resize", [None, None, integers(2, 3, 9, 8)], {"mode": "cubic", "exclude_outside": 1}, IMAGE),
    "Resize, old": ("Resize", [np.array([1, 1, 2, 3], np.float32)], {"mode": "nearest"}, IMAGE, 10),
    "CumSum": ("CumSum", [np.int64(2)], {}, IMAGE),
    "CumSum, from the end": ("CumSum", [np.int64(-1)], {"exclusive": 1, "reverse": 1}, IMAGE),
    "ScatterND": ("ScatterND", [integers(1, 2, -2, 0).reshape(2, 2), array(2, 6, 5)], {}, IMAGE),
    "ScatterND, sum": ("ScatterND", [integers(1, 0).reshape(2, 1), array(2, 3, 6, 5)], {"reduction": "add"}, IMAGE),
    "ScatterElements": ("ScatterElements", [integers(1, -1).reshape(2, 1), array(2, 1)], {"axis": 1}, (2, 3)),
    "TopK": ("TopK", [integers(2)], {"axis": 1}, IMAGE),
    "TopK, smallest": ("TopK", [integers(3)], {"largest": 0}, IMAGE),
    **{
        f"GridSample, {mode} {padding} {corners}": (
            "GridSample", [array(2, 4, 3, 2, low=-1.2, high=1.2)],
            {"mode": mode, "padding_mode": padding, "align_corners": corners}, IMAGE, 20,
        )
        for mode, padding, corners in (("linear", "zeros", 0), ("cubic", "border", 1), ("linear", "reflection", 0))
    },
    "DFT": ("DFT", [], {"axis": 1}, (2, 6, 1), 18),
    "DFT, half": ("DFT", [], {"axis": 2, "onesided": 1}, (2, 3, 5, 1), 18),
    "DFT, inverse": ("DFT", [None, np.int64(2)], {"inverse": 1}, (2, 3, 5, 2), 20),
    **{
        f"{kind}, {direction}": (
            kind, [array(count, gates * 4, 3), array(count, gates * 4, 4), array(count, gates * 8)],
            {"hidden_size": 4, "direction": direction}, (5, 2, 3),
        )
        for kind, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))
        for direction, count in (("forward", 1), ("reverse", 1), ("bidirectional", 2))
    },
    "GRU, as in torch": (
        "GRU", [array(1, 12, 3), array(1, 12, 4), array(1, 24), None, array(1, 2, 4)],
        {"hidden_size": 4, "linear_before_reset": 1}, (5, 2, 3),
    ),
    "LSTM, from a state": (
        "LSTM", [array(1, 16, 3), array(1, 16, 4), None, None, array(1, 2, 4), array(1, 2, 4)],
        {"hidden_size": 4}, (5, 2, 3),
    ),
    "Upsample": ("Upsample", [np.array([1, 1, 2, 2], np.float32)], {"mode": "linear"}, IMAGE, 9),
}  # fmt: skip


OLD_RUNTIME = Version(onnxruntime.__version__) < Version("1.29")


@pytest.mark.parametrize("case", CASES)
def test_an_operator_gives_what_onnx_runtime_gives(case):
    if case.startswith("AveragePool, counting") and CASES[case][2].get("ceil_mode") and OLD_RUNTIME:
        pytest.skip("ONNX Runtime before 1.29, the last one for Python 3.10, averages otherwise")
    check(graph(*CASES[case]), array(*CASES[case][3]))


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


@pytest.mark.parametrize(("operator", "passed"), [("Ceil", 3), ("Floor", 3), ("Round", 3), ("Sign", 1)])
def test_rounding_operators_pass_gradients_as_if_they_were_not_there(operator, passed):
    """Inputs up to 3; that of Sign ends at 1."""
    images = array(*IMAGE, low=-3, high=3)
    images.ravel()[:4] = (0.5, 1.5, -0.5, 0)
    network, points, result = ours(graph(operator, [], {}, IMAGE), images)
    assert network.estimated == (operator,)
    assert np.array_equal(result.detach().numpy(), theirs(graph(operator, [], {}, IMAGE), images))
    (gradient,) = torch.autograd.grad(result.sum(), points)
    assert np.array_equal(gradient.numpy(), np.abs(images) <= passed)


KEEPS_THE_NUMBER = ("CumSum", "DFT, half", "TopK", "Trilu", "Upsample", "Resize, axes", "Pad")
JOINED = "y = Relu(images) logits = Concat<axis = 1>(images, y)"


@pytest.mark.parametrize("case", [*KEEPS_THE_NUMBER, JOINED])
def test_exporting_an_operator_leaves_the_number_of_images_open(case):
    text = (
        f'<ir_version: 8, opset_import: ["": 18]> g (float[N, 3, 6, 5] images) => (float[N, 6, 6, 5] logits) {{{case}}}'
    )
    program = onnx.parser.parse_model(text) if case == JOINED else graph(*CASES[case])
    images = torch.rand(3, *(IMAGE if case == JOINED else CASES[case][3])[1:])
    exported = torch.export.export(OnnxNetwork(program), (images,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    assert len(exported.module()(torch.cat([images, images]))) == 6


def test_axes_stand_in_the_attribute_before_opset_18():
    program = graph("ReduceMean", [], {"axes": [2, 3], "keepdims": 1}, IMAGE, opset=13)
    images = array(*IMAGE)
    assert np.allclose(ours(program, images)[2].detach().numpy(), theirs(program, images), atol=1e-6)


@pytest.mark.parametrize("text", TEXTS)
def test_several_operators_give_what_onnx_runtime_gives(text):
    values = {"zero": integers(0), "number": integers(2), "bound": np.float32(-0.25), "high": np.float32(0.5)}
    values |= {"thirds": integers(1, 1, 1), "number_one": integers(1), "left": array(4, 6)}
    head = '<ir_version: 8, opset_import: ["": 18]> g (float[N, 3, 6, 5] images) => (float[A, B, C, D] logits) {'
    program = onnx.parser.parse_model(head + TEXTS[text] + "}")
    program.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in values.items())
    check(program, array(*IMAGE))


@pytest.mark.parametrize(
    ("operator", "constants", "attributes", "says"),
    [
        ("Hardmax", [], {}, "operator Hardmax of node 'the_node'"),
        ("Conv", [array(4, 3, 1, 1, 1, 1)], {}, "Conv of node 'the_node'.*4 dimensions"),
        ("Cast", [], {"to": 8}, "to type 8"),
        (
            "Resize",
            [array(8), np.array([1, 1, 2, 2], np.float32)],
            {"coordinate_transformation_mode": "tf_crop_and_resize"},
            "tf_crop_and_resize",
        ),
    ],
)
def test_what_is_not_covered_is_named(operator, constants, attributes, says):
    with pytest.raises(GraphError, match=says):
        ours(graph(operator, constants, attributes, IMAGE), array(*IMAGE))


def test_every_operator_has_a_case():
    here = {case[0] for case in CASES.values()}
    here |= {name for name in OPERATORS if any(f"= {name}{end}" in text for text in TEXTS.values() for end in "<(")}
    newer_than_the_oracle = {"Swish"}
    assert set(OPERATORS) - here == {"QuantizeLinear", "DequantizeLinear", "Round", "Sign"} | newer_than_the_oracle


def test_swish_is_a_product_with_its_sigmoid():
    images = torch.randn(3)
    program = graph("Swish", [], {"alpha": 2.0}, (3,), 24)
    assert torch.allclose(OnnxNetwork(program)(images), images * torch.sigmoid(2 * images))


def test_quantised_values_have_the_width_of_the_network():
    """An export compares the network with itself in fp64."""
    network = OnnxNetwork(quantised(np.int8, 0, 0.006)).double()
    assert network(torch.rand(2, 3, 6, 5, dtype=torch.float64)).dtype == torch.float64


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
