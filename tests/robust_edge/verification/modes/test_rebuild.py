"""Mode rebuild on bundles whose artifact is not executed; tests/attacks/rebuild changes bundles that are."""

from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("onnx", reason="bundles are exported with onnx")

from robust_edge.export import ExportChoices, GoldenSettings, export_run
from robust_edge.verification.new_export import (
    _first_difference,
    _hidden_in_manifest,
    _is_of_another_release,
    compare_with_run,
)
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.verify import verify_bundle
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.bundle import Bundle, open_bundle, seal
from robust_edge_runtimes.core.errors import BackendUnavailable
from robust_edge_runtimes.formats.tensorrt.runtime import TensorRtRuntime
from robust_edge_runtimes.verdict.measurement import Budget
from tests.attacks import forgery


@pytest.fixture(scope="module")
def tensorrt(sparse_run, tmp_path_factory):
    """A bundle of an older Jetson, in 8 bits whose ranges lie beside the file."""
    path = tmp_path_factory.mktemp("bundles") / "jetson"
    golden, choices = GoldenSettings(images=20, steps=1), ExportChoices(precision="int8", calibration=40)
    export_run(sparse_run, target_named("jetson-gpu", "5.1"), path, golden=golden, choices=choices)
    return path


@pytest.fixture
def compared(tensorrt, sparse_run, tmp_path):
    """compared(change) -> the Rebuild of a copy that `change(folder)` has changed; more as `forged`."""

    def compare(*files, **claims):
        path = forgery.forged(tensorrt, tmp_path / "bundle", *files, **claims)
        return compare_with_run(open_bundle(path), sparse_run, sparse_run.load_model(), None)

    return compare


def test_files_of_a_runtime_that_is_not_here_are_compared(compared):
    found = compared()
    assert found.equal, found.differences
    assert {"model.onnx", "engine.json", "calibration.cache", "build_engine.sh", "build_engine.py"} < set(
        found.compared
    )
    (note,) = found.notes
    assert "40 images, by default 256 or all" in note


def test_a_key_whose_value_is_none_can_be_what_differs():
    """An option that the format left open, taken out of a manifest or not yet known to the release that wrote it."""
    assert _first_difference("options", {"a": 1}, {"a": 1, "b": None}) == "options.b is 'missing' instead of None"
    assert _first_difference("options", {"b": None, "c": 2}, {"c": 2}) == "options.b is None instead of 'missing'"


def schema_of_another_release(path):
    schema = json.loads((path / "manifest.schema.json").read_text())
    del schema["properties"]["choices"]
    (path / "manifest.schema.json").write_text(json.dumps(schema))


def test_other_scripts_of_another_release_are_differences_with_their_reason(compared):
    def change(path):
        schema_of_another_release(path)
        (path / "run.py").write_text("#")

    (flag,) = compared(change).flags
    assert flag.name == "rebuild_differs"
    assert "run.py, line 1" in flag.detail
    assert "another release of robust-edge" in flag.detail


def test_an_empty_schema_is_no_other_release(tmp_path):
    """A file that the manifest does not list is empty in the copy that is verified."""
    (tmp_path / "ours").write_text('{"title": "x"}')
    (tmp_path / "theirs").write_text("")
    assert not _is_of_another_release(tmp_path / "ours", tmp_path / "theirs")


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


@pytest.mark.parametrize(
    "name", ["__pycache__/engine.cpython-311.pyc", "numpy/__init__.py", "GNUmakefile", ".dockerignore", "predict"]
)
def test_a_file_that_no_export_writes_is_a_difference(name, compared):
    assert compared(beside=forgery.added(name)).differences == (f"{name} is in the bundle, and no export writes it",)


@pytest.mark.parametrize("name", forgery.FIELDS)
def test_every_field_of_the_manifest_is_compared(name, compared):
    claim, words = forgery.FIELDS[name]
    found = compared(manifest=claim)
    assert any(line.startswith(f"manifest.json: {words}") for line in found.differences), found.differences


def test_a_manifest_that_hides_something(tensorrt, tmp_path):
    """Blanks between its fields, or texts that are not compared since only the exporting machine knows them."""
    path = shutil.copytree(tensorrt, tmp_path / "bundle")
    manifest = open_bundle(path).manifest
    assert not [*_hidden_in_manifest(Bundle(path, manifest), manifest)]
    long = seal(path, forgery.long_versions(manifest))
    (line,) = _hidden_in_manifest(Bundle(path, long), manifest)
    assert "bytes, an export writes at most" in line
    forgery.written_as(forgery.indented)(path)
    (line,) = _hidden_in_manifest(Bundle(path, manifest), manifest)
    assert "with more blanks" in line


def test_another_file_as_the_artifact_is_a_difference(compared):
    line = "manifest.json says that golden.npz is the artifact or a part of it"
    assert line in compared(manifest=forgery.inner("artifact", file="golden.npz")).differences


def test_what_cannot_be_exported_again(compared):
    (line,) = compared(manifest=forgery.field("target", lambda _: "toaster")).differences
    assert "manifest.json: unknown target 'toaster'" in line
    assert line.endswith("export the run again")
