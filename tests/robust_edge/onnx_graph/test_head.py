"""The last layer of a graph, found and resized, whatever stands behind it."""

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx", reason="the graphs are ONNX")

from robust_edge.onnx_graph.error import GraphError  # noqa: E402
from robust_edge.onnx_graph.head import with_classes  # noqa: E402
from robust_edge.onnx_graph.network import OnnxNetwork  # noqa: E402

FLOAT = onnx.TensorProto.FLOAT
K = 5
BODY = (("Conv", ["x", "first"], ["a"]), ("Relu", ["a"], ["b"]))
POOLED = (*BODY, ("GlobalAveragePool", ["b"], ["c"]), ("Flatten", ["c"], ["d"]))
VALUES = {
    "first": np.ones((6, 2, 3, 3)), "wide": np.ones((K, 6, 1, 1)), "gemm": np.ones((6, K)), "gemm_t": np.ones((K, 6)),
    "bias": np.arange(K), "row": np.arange(K)[None], "scale": np.array(2.0),
    "many": np.ones((6 * K, 6)), "target": np.array([-1, K]),
}  # fmt: skip
HEADS = {
    "gemm": (*POOLED, ("Gemm", ["d", "gemm", "bias"], ["y"])),
    "transposed": (*POOLED, ("Gemm", ["d", "gemm_t", "bias"], ["y"], {"transB": 1})),
    "matmul": (*POOLED, ("MatMul", ["d", "gemm"], ["e"]), ("Add", ["e", "row"], ["f"]), ("Identity", ["f"], ["y"])),
    "added scalar": (*POOLED, ("Gemm", ["d", "gemm"], ["e"]), ("Add", ["scale", "e"], ["y"])),
    "convolution": (
        *BODY, ("Conv", ["b", "wide", "bias"], ["c"]), ("Relu", ["c"], ["d"]), ("GlobalAveragePool", ["d"], ["e"]),
        ("Reshape", ["e", "target"], ["y"]),
    ),
}  # fmt: skip
REFUSED = {
    "Sigmoid of node 'y'": (*POOLED, ("Gemm", ["d", "gemm"], ["e"]), ("Sigmoid", ["e"], ["y"])),
    "Add of node 'y'": (*POOLED, ("Gemm", ["d", "gemm"], ["e"]), ("Relu", ["e"], ["f"]), ("Add", ["e", "f"], ["y"])),
    r"'many' of node 'e' is of shape \(30, 6\)": (
        *POOLED, ("Gemm", ["d", "many"], ["e"], {"transB": 1}), ("ReduceMean", ["e"], ["y"], {"axes": [1]}),
    ),
    "none between the images and the logits": (("GlobalAveragePool", ["x"], ["c"]), ("Flatten", ["c"], ["y"])),
}  # fmt: skip


def program_of(nodes):
    made = [
        onnx.helper.make_node(kind, given, found, name=found[0], **(more[0] if more else {}))
        for kind, given, found, *more in nodes
    ]
    used = {name for node in nodes for name in node[1]}
    stored = [
        onnx.numpy_helper.from_array(value.astype(np.int64 if name == "target" else np.float32), name)
        for name, value in VALUES.items()
        if name in used
    ]
    ports = [onnx.helper.make_tensor_value_info("x", FLOAT, ("N", 2, 8, 8))]
    output = [onnx.helper.make_tensor_value_info("y", FLOAT, None)]
    graph = onnx.helper.make_graph(made, "g", ports, output, stored)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=7)


def stripped(program):
    return onnx.load_from_string(OnnxNetwork(program).architecture)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("classes", [3, K, 8])
def test_only_the_last_layer_is_resized(kind, classes):
    old = OnnxNetwork(program_of(HEADS[kind]))
    program = stripped(program_of(HEADS[kind]))
    before = program.SerializeToString()
    changed, names = with_classes(program, K, classes)
    assert program.SerializeToString() == before
    new = OnnxNetwork(changed)
    fresh = {new.place_of(name) for name in names}
    assert new(torch.rand(4, 2, 8, 8)).shape == (4, classes)
    shapes = {name: tensor.shape for name, tensor in new.state_dict().items()}
    for name, tensor in old.state_dict().items():
        expected = [classes if size == K and name in fresh else size for size in tensor.shape]
        assert list(shapes[name]) == expected, name
    assert fresh == {name for name, tensor in old.state_dict().items() if K in tensor.shape}
    if classes == K:
        new.load_state_dict(old.state_dict())
        images = torch.rand(4, 2, 8, 8)
        assert torch.equal(new(images), old(images))


@pytest.mark.parametrize("says", REFUSED)
def test_what_hides_the_last_layer_is_named(says):
    with pytest.raises(GraphError, match=rf"the last layer cannot be found.*{says}"):
        with_classes(stripped(program_of(REFUSED[says])), K, 3)
