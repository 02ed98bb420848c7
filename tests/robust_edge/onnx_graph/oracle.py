"""Graphs of one node, and ONNX Runtime as the oracle of what they compute."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from robust_edge.onnx_graph.network import OnnxNetwork

RANDOM = np.random.default_rng(0)


def array(*shape, low=-1.0, high=1.0):
    return RANDOM.uniform(low, high, shape).astype(np.float32)


def integers(*values, kind=np.int64):
    return np.array(values, kind)


def graph(operator, constants, attributes, shape, opset=18):
    """A graph of one node on one input; the caller averages its output to (N, K) logits."""
    make, arrays = onnx.helper, onnx.numpy_helper
    names = ["images", *("" if value is None else f"c{i}" for i, value in enumerate(constants))]
    version = 10 if opset > 20 else 9 if opset > 18 else 8
    outputs = ["logits", "indices"] if operator == "TopK" else ["logits"]
    nodes = [make.make_node(operator, names, outputs, name="the_node", **attributes)]
    initializers = [arrays.from_array(value, f"c{i}") for i, value in enumerate(constants) if value is not None]
    kind = onnx.TensorProto.FLOAT
    ports = [make.make_tensor_value_info("images", kind, shape), make.make_tensor_value_info("logits", kind, None)]
    program = make.make_graph(nodes, "one", ports[:1], ports[1:], initializers)
    return make.make_model(program, opset_imports=[make.make_opsetid("", opset)], ir_version=version)


IMAGE, ROWS = (2, 3, 6, 5), (4, 6)


def ours(program, images):
    network = OnnxNetwork(program)
    points = torch.from_numpy(images).requires_grad_(True)
    return network, points, network(points)


def theirs(program, images):
    return session(program)(images)


def session(program):
    opened = ort.InferenceSession(program.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda images: opened.run(None, {"images": images})[0]


def check(program, images):
    """Compare values with ONNX Runtime's, and the gradient with finite differences of ONNX Runtime's values."""
    _, points, result = ours(program, images)
    run = session(program)
    expected = run(images)
    assert tuple(result.shape) == expected.shape
    assert np.allclose(result.detach().numpy(), expected, atol=2e-6)
    weight = torch.from_numpy(array(*expected.shape))
    (gradient,) = torch.autograd.grad((result * weight).sum(), points)
    for index in np.random.default_rng(1).integers(0, images.size, 6):
        moved = [images.copy(), images.copy()]
        for image, sign in zip(moved, (1, -1), strict=True):
            image.ravel()[index] += np.float32(sign * 1e-3)
        rise = sum(s * (run(x) * weight.numpy()).sum() for x, s in zip(moved, (1, -1), strict=True))
        assert gradient.numpy().ravel()[index] == pytest.approx(rise / 2e-3, abs=5e-3)
