"""ONNX files as other tools write them: a softmax under a reshape, Squeeze without axes, channels last."""

import json

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx", reason="the files are ONNX")
ort = pytest.importorskip("onnxruntime", reason="the oracle is onnxruntime")

from robust_edge.importing.onnx import ALONE  # noqa: E402
from robust_edge.importing.source import Request  # noqa: E402
from robust_edge.importing.table import read_source  # noqa: E402
from robust_edge.onnx_graph.network import OnnxNetwork  # noqa: E402
from robust_edge_runtimes.core.errors import InputError  # noqa: E402

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
LOGITS = [("Conv", ["x", "kernel"], "a"), ("GlobalAveragePool", ["a"], "b")]
"""(N, 5, 1, 1)."""
HELD = {
    "kernel": np.random.default_rng(0).normal(size=(5, 3, 3, 3)).astype(np.float32),
    "rows": np.array([-1, 5]),
    "axes": np.array([1]),
}


def written(path, nodes, *, shape=("N", 3, 8, 8), opset=13, held=HELD):
    """A graph of nodes (operator, inputs, output, attributes), from `x` to `y`."""
    made = [onnx.helper.make_node(kind, given, [out], **dict(*own)) for kind, given, out, *own in nodes]
    ports = [onnx.helper.make_tensor_value_info(name, FLOAT, size) for name, size in (("x", shape), ("y", None))]
    read = {name for node in made for name in node.input}
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in held.items() if name in read]
    graph = onnx.helper.make_graph(made, "g", ports[:1], ports[1:], tensors)
    program = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=7)
    onnx.save(program, path)
    return path


def outputs(path, images):
    return ort.InferenceSession(path).run(None, {"x": images})[0]


def images_of(shape=(3, 8, 8)):
    return np.random.default_rng(1).uniform(size=(4, *shape)).astype(np.float32)


@pytest.mark.parametrize(
    "tail",
    [
        [("Softmax", ["b"], "c", {"axis": 1}), ("Flatten", ["c"], "y")],
        [("Reshape", ["b", "rows"], "c"), ("Softmax", ["c"], "d"), ("Reshape", ["d", "rows"], "y")],
        [("Flatten", ["b"], "c"), ("LogSoftmax", ["c"], "d", {"axis": -1}), ("Identity", ["d"], "y")],
        [
            ("Flatten", ["b"], "c"), ("Cast", ["c"], "d", {"to": HALF}),
            ("Softmax", ["d"], "e", {"axis": -1}), ("Cast", ["e"], "y", {"to": FLOAT}),
        ],
    ],
)  # fmt: skip
def test_a_softmax_is_removed_under_what_only_reshapes(tmp_path, tail):
    path = written(tmp_path / "m.onnx", [*LOGITS, *tail])
    found = read_source(Request(path=path))
    assert any("removed, so that the network gives logits" in note for note in found.notes)
    images = images_of()
    with torch.no_grad():
        logits = found.network(torch.from_numpy(images))
    probabilities = outputs(path, images)
    if probabilities.max() <= 0:
        probabilities = np.exp(probabilities)
    assert np.abs(logits.softmax(1).numpy() - probabilities).max() < 1e-3
    assert np.abs(logits.sum(1).numpy() - 1).max() > 1e-2


def test_a_softmax_of_something_else_stays(tmp_path):
    """Over the pixels of each channel: other classes would be the largest without it."""
    nodes = [LOGITS[0], ("Reshape", ["a", "maps"], "b"), ("Softmax", ["b"], "c", {"axis": -1}), ("Flatten", ["c"], "y")]
    path = written(tmp_path / "m.onnx", nodes, held={**HELD, "maps": np.array([0, 5, -1])})
    found = read_source(Request(path=path))
    images = images_of()
    with torch.no_grad():
        assert np.abs(found.network(torch.from_numpy(images)).numpy() - outputs(path, images)).max() < 1e-6
    assert not any("removed" in note for note in found.notes)


def test_probabilities_that_are_computed_otherwise_are_named(tmp_path):
    nodes = [
        *LOGITS, ("Flatten", ["b"], "c"), ("Exp", ["c"], "d"), ("ReduceSum", ["d", "axes"], "e", {"keepdims": 1}),
        ("Div", ["d", "e"], "y"),
    ]  # fmt: skip
    found = read_source(Request(path=written(tmp_path / "m.onnx", nodes)))
    assert any("the outputs are probabilities" in note for note in found.notes)


@pytest.mark.parametrize("opset", [11, 13])
def test_squeeze_without_axes_keeps_that_of_the_images(tmp_path, opset):
    path = written(tmp_path / "m.onnx", [*LOGITS, ("Squeeze", ["b"], "y")], opset=opset)
    found, images = read_source(Request(path=path)), images_of()
    with torch.no_grad():
        alone = torch.cat([found.network(torch.from_numpy(image[None])) for image in images])
    assert np.abs(alone.numpy() - outputs(path, images)).max() < 1e-6


def test_what_is_wrong_is_named_with_the_file(tmp_path):
    broken = {**HELD, "kernel": np.full((5, 3, 3, 3), np.nan, np.float32)}
    path = written(tmp_path / "nan.onnx", [*LOGITS, ("Flatten", ["b"], "y")], held=broken)
    with pytest.raises(InputError, match=r"nan\.onnx gives logits that are NaN or infinite; 'kernel' holds"):
        read_source(Request(path=path))
    wide = [("Cast", ["x"], "w", {"to": onnx.TensorProto.DOUBLE}), ("Conv", ["w", "kernel"], "a"), *LOGITS[1:]]
    wide += [("Flatten", ["b"], "c"), ("Cast", ["c"], "y", {"to": FLOAT})]
    held = {**HELD, "kernel": HELD["kernel"].astype(np.float64)}
    with pytest.raises(InputError, match=r"double\.onnx: ONNX Runtime cannot run .*export the network in float32"):
        read_source(Request(path=written(tmp_path / "double.onnx", wide, held=held)))


def test_channels_last_without_a_shape(cli, tmp_path):
    nodes = [("Transpose", ["x"], "t", {"perm": [0, 3, 1, 2]}), ("Conv", ["t", "kernel"], "a"), *LOGITS[1:]]
    path = written(tmp_path / "m.onnx", [*nodes, ("Flatten", ["b"], "y")], shape=("N", 8, 9, 3))
    assert read_source(Request(path=path)).shape == (3, 8, 9)
    timed = cli("bench", path, "--input-shape", "3x8x9", "--target", "x86-cpu-csr", "--seconds", 0.02, "--images", 2)
    assert timed.exit_code == 0, timed.output


def test_check_says_of_a_file_what_export_does_with_it(cli, refused, tmp_path):
    nodes = [*LOGITS, ("LpNormalization", ["b"], "c", {"axis": 1}), ("Flatten", ["c"], "y")]
    path, targets = written(tmp_path / "m.onnx", nodes, shape=("N", 3, "H", "W")), ["x86-cpu-csr", "x86-cpu-int8"]
    asked = [part for target in targets for part in ("--target", target)]
    result = cli("check", path, "--input-shape", "3x8x8", *asked, "--json")
    assert result.exit_code == 1, result.output
    answers = {answer["target"]: answer["problem"] for answer in json.loads(result.stdout)["targets"]}
    assert not answers["x86-cpu-csr"]
    assert answers["x86-cpu-int8"].startswith("works, but int8 reads ranges from images")
    for target in targets:
        made = cli("export", path, "--input-shape", "3x8x8", "--target", target, "-o", tmp_path / target)
        assert (made.exit_code == 0) == (not answers[target]), made.output
    assert "give --input-shape" in refused("check", path)
    assert "either a run, an ONNX file or an architecture" in refused("check", path, "--arch", "small_cnn")


def test_a_file_for_a_large_batch_is_not_run_once_for_every_image(tmp_path, monkeypatch):
    runs, forward = [], OnnxNetwork.forward
    monkeypatch.setattr(OnnxNetwork, "forward", lambda network, x: runs.append(len(x)) or forward(network, x))
    read_source(Request(path=written(tmp_path / "m.onnx", [*LOGITS, ("Flatten", ["b"], "y")], shape=(1000, 3, 8, 8))))
    assert runs[1:] == [1] * ALONE


def test_a_graph_with_a_circle_is_refused(tmp_path):
    circle = [("Flatten", ["y"], "c"), ("Identity", ["c"], "y")]
    with pytest.raises(InputError, match=r"m\.onnx"):
        read_source(Request(path=written(tmp_path / "m.onnx", [*LOGITS, *circle])))
