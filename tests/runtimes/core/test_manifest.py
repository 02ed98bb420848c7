from __future__ import annotations

import copy
import dataclasses
import json

import pytest

from robust_edge_runtimes.core.errors import BundleError
from robust_edge_runtimes.core.manifest import Companion, LayerCount, Manifest, Sparsity


@pytest.fixture
def value(opened):
    return json.loads(json.dumps(opened.manifest.to_json()))


def set_in(value, path, new):
    *parents, last = path.split(".")
    for key in parents:
        value = value[int(key)] if key.isdigit() else value[key]
    value[int(last) if last.isdigit() else last] = new


def test_json_and_back_is_the_same_manifest(opened, value):
    assert Manifest.from_json(value) == opened.manifest


def test_keep_is_the_counted_fraction():
    layers = (LayerCount("a", 8, 2), LayerCount("b", 2, 2))
    assert [layer.keep for layer in layers] == [0.25, 1.0]
    assert Sparsity(10, 4, layers).keep == 0.4


@pytest.mark.parametrize("version", [0, 2, "1", 1.5, None, [1], {"a": 1}, 10**2000, "x" * 10**5])
def test_another_schema_version_is_refused_in_a_short_line(value, version):
    value["schema_version"] = version
    with pytest.raises(BundleError, match=r"schema_version is .* this release reads 1") as caught:
        Manifest.from_json(value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("value", [None, 3, "text", [], {}])
def test_what_is_no_manifest_is_refused(value):
    with pytest.raises(BundleError):
        Manifest.from_json(value)


def paths(value, prefix=""):
    for key, item in value.items():
        yield prefix + key
        if isinstance(item, dict):
            yield from paths(item, prefix + key + ".")


OPTIONAL = {"artifact.opset", "artifact.ir_version", "input.dtype", "output.dtype"}


def test_every_field_is_required_and_no_other_is_taken(value):
    checked = 0
    for path in list(paths(value)):
        if path.startswith(("files.", "source.versions.")) or path in OPTIONAL:
            continue
        broken = copy.deepcopy(value)
        *parents, last = path.split(".")
        holder = broken
        for key in parents:
            holder = holder[key]
        holder[last + "_"] = holder.pop(last)
        with pytest.raises(BundleError):
            Manifest.from_json(broken)
        checked += 1
    assert checked > 30


@pytest.mark.parametrize(
    ("path", "new", "message"),
    [
        ("schema_version", True, "whole number"),
        ("input.shape", [None, 1, 4], "input.shape"),
        ("input.shape", [None, None, 4, 4], "input.shape"),
        ("input.shape", [None, 0, 4, 4], "input.shape"),
        ("input.shape", [None, 1, -4, 4], "input.shape"),
        ("input.shape", [0, 1, 4, 4], "input.shape"),
        ("input.shape", [-1, 1, 4, 4], "input.shape"),
        ("input.shape", [None, 1 << 15, 1 << 14, 1], "one batch"),
        ("input.shape", [10**18, 1, 4, 4], "one batch"),
        ("input.shape", [10**30, 1, 4, 4], "64 bits"),
        ("input.dtype", "uint8", "float32"),
        ("output.dtype", "float64", "float32"),
        ("output.shape", [None, 3], "4 classes"),
        ("output.shape", [4], "4 classes"),
        ("output.shape", [None, 4, 1], "4 classes"),
        ("classes", ["a", "b", "c"], "3 classes"),
        ("classes.1", "two\nlines", "control character"),
        ("classes.1", "\x1b[2Jscreen", "control character"),
        ("target", "x86\x07", "control character"),
        ("input_range", [0.0], "input_range"),
        ("input_range", [1.0, 0.0], "input_range"),
        ("input_range", [0.0, 0.0], "input_range"),
        ("input_range", [0.0, 1.0, 2.0], "input_range"),
        ("artifact.file", "labels.txt", "does not agree"),
        ("artifact.file", "absent.onnx", "does not agree"),
        ("artifact.sha256", "0" * 64, "does not agree"),
        ("artifact.bytes", 1, "does not agree"),
        ("artifact.precision", "fp33", "'fp33' is not one of fp32, fp16, int8"),
        (
            "artifact.companions",
            [{"file": "labels.txt", "sha256": "0" * 64, "bytes": 1}],
            "'labels.txt' does not agree",
        ),
        ("artifact.companions", [{"file": "../secret", "sha256": "0" * 64, "bytes": 1}], "does not agree"),
        ("artifact.companions", [{"file": "absent", "sha256": "0" * 64, "bytes": 1}], "does not agree"),
        ("sparsity.weights", 65, "sparsity.weights"),
        ("sparsity.nonzero", 17, "sparsity.nonzero"),
        ("sparsity.layers", [], "sparsity.weights"),
        ("expected.images", 0, "no images"),
        ("expected.clean_accuracy", 1.01, "accuracy outside"),
        ("expected.robust_accuracy", -0.01, "accuracy outside"),
        ("expected.attack.eps", -0.1, "expected.attack"),
        ("expected.attack.eps", 1.5, "expected.attack"),
        ("expected.attack.step_size", -1, "expected.attack"),
        ("expected.attack.step_size", 1e300, "expected.attack"),
        ("expected.attack.steps", -1, "expected.attack"),
        ("expected.attack.seed", -1, "expected.attack"),
    ],
)
def test_a_manifest_that_cannot_be_true_is_refused(value, path, new, message):
    set_in(value, path, new)
    with pytest.raises(BundleError, match=message):
        Manifest.from_json(value)


def companion(value, name):
    return {"file": name, **value["files"][name]}


def test_companions_are_listed_once_in_order_and_without_the_artifact(value):
    for names in (["labels.txt", "golden.npz"], ["golden.npz", "golden.npz"], ["golden.npz", "model.onnx"]):
        value["artifact"]["companions"] = [companion(value, name) for name in names]
        with pytest.raises(BundleError, match="sorted by name, each once"):
            Manifest.from_json(value)
    value["artifact"]["companions"] = [companion(value, name) for name in ("golden.npz", "labels.txt")]
    artifact = Manifest.from_json(value).artifact
    assert artifact.files == ("model.onnx", "golden.npz", "labels.txt")
    assert artifact.total_bytes == sum(value["files"][name]["bytes"] for name in artifact.files)


def test_the_identity_changes_with_every_name_and_byte_of_the_model(value):
    artifact = Manifest.from_json(value).artifact
    assert artifact.identity == artifact.sha256
    one, other = (Companion(name, "1" * 64, 1) for name in ("a", "b"))
    versions = [
        (artifact.sha256, (one,)),
        (artifact.sha256, (other,)),
        (artifact.sha256, (one, other)),
        (artifact.sha256, (dataclasses.replace(one, sha256="2" * 64),)),
        ("0" * 64, (one,)),
    ]
    found = {dataclasses.replace(artifact, sha256=sha256, companions=parts).identity for sha256, parts in versions}
    assert len(found | {artifact.identity}) == len(versions) + 1


def test_manifests_from_before_there_were_companions_are_read(value):
    del value["artifact"]["companions"]
    assert Manifest.from_json(value).artifact.companions == ()


def test_no_class_at_all_is_refused(value):
    value["classes"] = []
    value["output"]["shape"] = [None, 0]
    with pytest.raises(BundleError, match="0 classes"):
        Manifest.from_json(value)


@pytest.mark.parametrize("counts", [(64, 65), (64, -1)])
def test_impossible_layer_counts_are_refused(value, counts):
    weights, nonzero = counts
    value["sparsity"] = {
        "weights": weights,
        "nonzero": nonzero,
        "layers": [{"name": "weight", "weights": weights, "nonzero": nonzero}],
    }
    with pytest.raises(BundleError, match="more non-zeros than weights"):
        Manifest.from_json(value)


def test_layers_of_negative_size_cannot_hide_in_the_sum(value):
    value["sparsity"]["layers"] += [
        {"name": "a", "weights": 5, "nonzero": 0},
        {"name": "b", "weights": -5, "nonzero": 0},
    ]
    with pytest.raises(BundleError):
        Manifest.from_json(value)


def test_a_fixed_batch_and_names_in_any_script_are_fine(value):
    value["input"]["shape"][0] = 8
    value["classes"][0] = "北 нort\u200dh"
    assert Manifest.from_json(value).input.shape == (8, 1, 4, 4)
