"""An ONNX file alone is exported and timed; nothing is claimed of its accuracy, and what needs images is refused."""

import json

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the files are ONNX")
ort = pytest.importorskip("onnxruntime", reason="the oracle is onnxruntime")

from robust_edge_runtimes import load  # noqa: E402
from tests.commands import run  # noqa: E402


def written(path, shape=("N", 1, 8, 8), constants=False):
    """A convolution, a pool, a linear layer and a softmax; half of the weights of the convolution are zero."""
    random, make, kind = np.random.default_rng(0), onnx.helper, onnx.TensorProto.FLOAT
    kernel = random.normal(size=(6, 1, 3, 3)).astype(np.float32)
    kernel[::2] = 0
    held = {"kernel": kernel, "weight": random.normal(size=(6, 5)).astype(np.float32)}
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in held.items()]
    nodes = [
        make.make_node("Conv", ["x", "kernel"], ["a"]), make.make_node("Relu", ["a"], ["b"]),
        make.make_node("GlobalAveragePool", ["b"], ["c"]), make.make_node("Flatten", ["c"], ["d"]),
        make.make_node("MatMul", ["d", "weight"], ["e"]), make.make_node("Softmax", ["e"], ["y"]),
    ]  # fmt: skip
    if constants:
        nodes = [*(make.make_node("Constant", [], [item.name], value=item) for item in tensors), *nodes]
        tensors = []
    ports = [make.make_tensor_value_info("x", kind, shape), make.make_tensor_value_info("y", kind, None)]
    graph = make.make_graph(nodes, "g", ports[:1], ports[1:], tensors)
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 13)], ir_version=7), path)
    return path


def test_a_file_is_exported_and_its_bundle_says_that_it_has_no_images(cli, refused, tmp_path):
    path, bundle = written(tmp_path / "m.onnx"), tmp_path / "bundle"
    scaled = ("--mean", 0.5, "--std", 0.25)
    made = cli("export", path, "--target", "x86-cpu-csr", *scaled, "--json", "-o", bundle)
    assert made.exit_code == 0, made.output
    assert "final Softmax removed" in made.stderr
    assert "nothing of accuracy or robustness" in made.stderr
    assert json.loads(made.stdout)["manifest"]["source"]["dataset"] == "no images"
    assert "accuracy and robustness are unknown" in (bundle / "README.md").read_text()
    images = np.random.default_rng(1).uniform(size=(4, 1, 8, 8)).astype(np.float32)
    expected = ort.InferenceSession(path).run(None, {"x": (images - 0.5) / 0.25})[0]
    with load(bundle) as model:
        logits = model.infer(images)
    found = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert np.abs(found - expected).max() < 1e-6
    assert "no accuracy to verify" in refused("verify", bundle)
    assert "no accuracy to verify" in run("robust-edge-device", "verify", bundle, expect=2).stderr


def test_a_file_is_timed_as_it_is_and_in_a_target(cli, tmp_path):
    path = written(tmp_path / "m.onnx", ("N", 1, "H", "W"), constants=True)
    times = ("--target", "x86-cpu-csr", "--seconds", 0.02, "--images", 2, "--input-shape", "1x8x8")
    result = cli("bench", path, *times, "--json", "-q")
    assert result.exit_code == 0, result.output
    entries = {entry["label"]: entry for entry in json.loads(result.stdout)["entries"]}
    assert [label.partition(" (")[0] for label in entries] == ["m.onnx", "m.onnx", "m.onnx for x86-cpu-csr"]
    assert {entries["m.onnx"]["keep"], entries["m.onnx for x86-cpu-csr"]["keep"]} == {57 / 84}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("export {file} --target x86-cpu-int8 -o {out}", "int8 reads ranges from images"),
        ("export {open} --target x86-cpu -o {out}", "give --input-shape"),
        ("export {file} --target x86-cpu --golden 9 -o {out}", "--golden does not apply"),
        ("export {file} --target x86-cpu --std 0 -o {out}", "--std must be above 0"),
        ("export {file} --target x86-cpu --mean 0.1,0.2 -o {out}", "2 values"),
        ("export {broken} --target x86-cpu -o {out}", "cannot be read as ONNX"),
        ("export {missing} --target x86-cpu -o {out}", "is not a file"),
        ("bench {open}", "give --input-shape"),
        ("bench {broken}", "cannot be read as ONNX"),
        ("bench {missing}", "is not a file"),
        ("bench {missing}.d --target x86-cpu", "for ONNX files"),
    ],
)
def test_what_needs_images_or_cannot_be_read_is_refused_in_one_line(refused, tmp_path, arguments, says):
    paths = {
        "file": written(tmp_path / "m.onnx"), "open": written(tmp_path / "open.onnx", ("N", 1, -1, -1)),
        "broken": tmp_path / "broken.onnx", "missing": tmp_path / "missing.onnx", "out": tmp_path / "bundle",
    }  # fmt: skip
    paths["broken"].write_bytes(b"noise")
    assert says in refused(*arguments.format(**paths).split())
    assert not (tmp_path / "bundle").exists()


def test_the_normalisation_of_a_run_is_its_own(refused, sparse_run, tmp_path):
    out = tmp_path / "bundle"
    assert "--mean does not apply" in refused("export", sparse_run.path, "--target", "x86-cpu", "--mean", 1, "-o", out)
