"""Mode rebuild on bundles whose artifact is not executed; tests/attacks/test_rebuild.py changes bundles that are."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

pytest.importorskip("onnx", reason="bundles are exported with onnx")

from robust_edge.export import ExportChoices, GoldenSettings, export_run
from robust_edge.verification.modes.rebuild import compare_with_run
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.verify import verify_bundle
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.bundle import open_bundle, seal
from robust_edge_runtimes.core.errors import BackendUnavailable
from robust_edge_runtimes.formats.tensorrt.runtime import TensorRtRuntime
from robust_edge_runtimes.verdict.measurement import Budget


@pytest.fixture(scope="module")
def tensorrt(sparse_run, tmp_path_factory):
    """A bundle of an older Jetson, in 8 bits whose ranges lie beside the file."""
    path = tmp_path_factory.mktemp("bundles") / "jetson"
    golden, choices = GoldenSettings(images=20, steps=1), ExportChoices(precision="int8", calibration=40)
    export_run(sparse_run, target_named("jetson-gpu", "5.1"), path, golden=golden, choices=choices)
    return path


@pytest.fixture
def compared(tensorrt, sparse_run, tmp_path):
    """compared(change) -> the Rebuild of a copy that `change(folder)` has changed, sealed again."""

    def compare(change=lambda path: None, **claims):
        path = shutil.copytree(tensorrt, tmp_path / "bundle")
        manifest = dataclasses.replace(open_bundle(path).manifest, **claims)
        change(path)
        seal(path, manifest)
        return compare_with_run(open_bundle(path), sparse_run, sparse_run.load_model(), None)

    return compare


def test_files_of_a_runtime_that_is_not_here_are_compared(compared):
    found = compared()
    assert found.equal, found.differences
    assert {"model.onnx", "engine.json", "calibration.cache", "build_engine.sh", "build_engine.py"} < set(
        found.compared
    )
    (note,) = found.notes
    assert "40 images, by default 256" in note


def schema_of_another_release(path):
    schema = json.loads((path / "manifest.schema.json").read_text())
    del schema["properties"]["choices"]
    (path / "manifest.schema.json").write_text(json.dumps(schema))


def test_the_schema_of_another_release_is_no_difference_and_is_said(compared):
    found = compared(schema_of_another_release)
    assert found.equal, found.differences
    assert "manifest.schema.json" not in found.compared
    assert any("another release" in note for note in found.notes)


def test_other_scripts_of_another_release_are_differences_with_their_reason(compared):
    def change(path):
        schema_of_another_release(path)
        (path / "run.py").write_text("#")

    (flag,) = compared(change).flags
    assert flag.name == "rebuild_differs"
    assert flag.detail.startswith("run.py, line 1")
    assert "another release of robust-edge" in flag.detail


@pytest.mark.parametrize("text", ['{"title": "x"}', "[]"])
def test_a_file_in_place_of_the_schema_is_a_difference(text, compared):
    (line,) = compared(lambda path: (path / "manifest.schema.json").write_text(text)).differences
    assert line.startswith("manifest.schema.json, line 1")


def test_recipe_ranges_and_scripts_are_compared(compared):
    def change(path):
        lines = (path / "calibration.cache").read_text().splitlines()
        lines[1] = lines[1][:-8] + "3f800000"
        (path / "calibration.cache").write_text("\n".join(lines) + "\n")
        (path / "engine.json").write_text((path / "engine.json").read_text().replace('"INT8"', '"FP16"'))
        (path / "build_engine.py").write_text("#")

    found = compared(change)
    assert not found.equal
    assert [line.partition(",")[0].partition(":")[0] for line in found.differences] == [
        "build_engine.py",
        "calibration.cache",
        "engine.json",
    ]


def test_what_verify_says_without_the_runtime(tensorrt, sparse_run, monkeypatch):
    def missing(self):
        raise BackendUnavailable("no TensorRT")

    monkeypatch.setattr(TensorRtRuntime, "open_impl", missing)
    with pytest.raises(BackendUnavailable, match=r"no TensorRT; nothing was attacked\. rebuild: \d+ files equal"):
        verify_bundle(open_bundle(tensorrt), sparse_run, Budget(), VerifySettings())
    with pytest.raises(BackendUnavailable, match=r"no TensorRT$"):
        verify_bundle(open_bundle(tensorrt), sparse_run, Budget(), VerifySettings(modes=("replay",)))


def test_python_that_lies_beside_the_listed_files(compared):
    def change(path):
        (path / "__pycache__").mkdir()
        (path / "__pycache__" / "engine.cpython-311.pyc").write_bytes(b"")
        (path / "numpy").mkdir()
        (path / "numpy" / "__init__.py").write_text("")

    found = compared(change)
    assert "numpy/__init__.py is in the bundle, and no export writes it" in found.differences
    assert any("__pycache__" in note for note in found.notes)


def test_another_file_as_the_artifact_is_a_difference(compared, tensorrt):
    manifest = open_bundle(tensorrt).manifest
    artifact = dataclasses.replace(manifest.artifact, file="golden.npz")
    assert compared(artifact=artifact).differences == (
        "manifest.json says that golden.npz is the artifact or a part of it",
    )


@pytest.mark.parametrize(
    ("claims", "words"), [({"target": "toaster"}, "unknown target 'toaster'"), ({"parity": None}, "README.md is not")]
)
def test_what_cannot_be_exported_again_or_compared(claims, words, compared):
    found = compared(**claims)
    assert any(words in line for line in (*found.differences, *found.notes))
    assert found.equal is ("parity" in claims)
