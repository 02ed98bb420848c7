"""The sparse engine's runtime: compiled once, cached by what it depends on, never guessing."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from robust_edge_runtimes.core.errors import BackendUnavailable, BundleError
from robust_edge_runtimes.core.manifest import Artifact, Companion
from robust_edge_runtimes.formats.native import engine as native_engine
from robust_edge_runtimes.formats.native.engine import EngineError, Network
from robust_edge_runtimes.formats.native.runtime import NativeRuntime
from tests.conftest import SHAPE, golden_of, manifest_of

exporter = pytest.importorskip("robust_edge_exporters.native", reason="the artifact is written by the exporter")
needs_compiler = pytest.mark.skipif(native_engine.find_compiler() is None, reason="there is no C compiler")


@pytest.fixture
def artifact(linear, tmp_path, monkeypatch):
    """A folder with the exported linear classifier; the cache lies beside it."""
    import onnx

    folder = tmp_path / "bundle"
    folder.mkdir()
    onnx.save(linear.program(), folder / "model.onnx")
    exporter.export_native(folder / "model.onnx", folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def manifest(linear):
    return listing(manifest_of(linear, golden_of(linear)), "model.h", "weights.bin")


def listing(manifest, *companions):
    """The manifest, its artifact being model.c with these companions."""
    entries = tuple(Companion(name, "0" * 64, 1) for name in companions)
    return dataclasses.replace(
        manifest, artifact=Artifact("model.c", "native", "fp32", "0" * 64, 1, None, None, entries)
    )


@needs_compiler
def test_logits_are_those_of_the_matrix_product(artifact, manifest, linear):
    images = golden_of(linear).clean
    for threads in (1, 2):
        with NativeRuntime(artifact / "model.c", manifest, threads=threads) as model:
            assert np.allclose(model.infer(images), linear.logits(images), rtol=1e-5, atol=1e-5)
            assert np.array_equal(model.infer(images[:1]), model.infer(images)[:1])
            assert (model.info.backend, model.info.device, model.info.threads) == ("native", "cpu", threads)


@needs_compiler
def test_it_opens_from_inside_the_folder_too(artifact, manifest, linear, monkeypatch):
    """A shipped library is then a bare name, which the system would look for elsewhere."""
    shipped = native_engine.compile_library(artifact)
    monkeypatch.chdir(artifact)
    listed = listing(manifest, "model.h", "weights.bin", shipped.name)
    images = golden_of(linear).clean
    with NativeRuntime(Path("model.c"), listed) as model:
        assert model.info.version == shipped.stem
        assert np.allclose(model.infer(images), linear.logits(images), rtol=1e-5, atol=1e-5)


@needs_compiler
def test_threads_of_the_caller_take_turns(artifact, manifest, linear):
    images = golden_of(linear).clean
    with NativeRuntime(artifact / "model.c", manifest, threads=2) as model:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(model.infer, [images] * 50))
        assert all(np.array_equal(answer, answers[0]) for answer in answers)


@needs_compiler
def test_contexts_are_independent(artifact, manifest, linear):
    images = golden_of(linear).clean
    with NativeRuntime(artifact / "model.c", manifest) as one:
        with NativeRuntime(artifact / "model.c", manifest, threads=2) as other:
            expected = other.infer(images)
        assert np.array_equal(one.infer(images), expected)


@needs_compiler
def test_a_library_is_built_once(artifact, monkeypatch):
    first = native_engine.library(artifact)
    monkeypatch.setattr(native_engine, "_compile", None)
    assert native_engine.library(artifact) == first
    assert first.parent == native_engine.cache_folder()


@needs_compiler
@pytest.mark.parametrize("change", ["source", "cpu", "compiler"])
def test_a_library_is_built_anew_when_what_it_depends_on_changes(change, artifact, monkeypatch):
    first = native_engine.library(artifact)
    if change == "source":
        with (artifact / "model.c").open("a", encoding="utf-8") as file:
            file.write("/* another line */\n")
    elif change == "cpu":
        monkeypatch.setattr(native_engine, "cpu", lambda: "another")
    else:
        command, _ = native_engine.find_compiler()
        monkeypatch.setattr(native_engine, "find_compiler", lambda: (command, "another version"))
    assert native_engine.library(artifact) != first


@needs_compiler
def test_a_library_that_the_manifest_lists_needs_no_compiler(artifact, manifest, linear, monkeypatch):
    built = native_engine.compile_library(artifact)
    listed = listing(manifest, "model.h", "weights.bin", built.name)
    monkeypatch.setattr(native_engine, "find_compiler", lambda: None)
    with NativeRuntime(artifact / "model.c", listed) as model:
        images = golden_of(linear).clean
        assert np.allclose(model.infer(images), linear.logits(images), rtol=1e-5, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("compiler", [True, False])
def test_a_library_that_nobody_has_checked_is_never_loaded(compiler, artifact, manifest, monkeypatch):
    built = native_engine.compile_library(artifact)
    built.write_bytes(b"not what was built")
    if compiler:
        assert native_engine.library(artifact, manifest.artifact.files).parent == native_engine.cache_folder()
        return
    monkeypatch.setattr(native_engine, "find_compiler", lambda: None)
    with pytest.raises(EngineError, match="no C compiler"):
        native_engine.library(artifact, manifest.artifact.files)


def test_without_compiler_and_library_the_way_out_is_named(artifact, manifest, monkeypatch):
    monkeypatch.setattr(native_engine, "find_compiler", lambda: None)
    with pytest.raises(BackendUnavailable, match=r"no C compiler was found .*apt install gcc, or set CC"):
        NativeRuntime(artifact / "model.c", manifest).open()


@needs_compiler
def test_source_that_does_not_compile_is_a_bundle_error(artifact, manifest):
    (artifact / "model.c").write_text("int x = ;\n", encoding="utf-8")
    with pytest.raises(BundleError, match=r"cannot compile .*model\.c"):
        NativeRuntime(artifact / "model.c", manifest).open()
    assert list(native_engine.cache_folder().iterdir()) == []


@needs_compiler
def test_a_missing_file_is_a_bundle_error(artifact, manifest):
    (artifact / "weights.bin").unlink()
    with pytest.raises(BundleError, match=r"weights\.bin cannot be read"):
        NativeRuntime(artifact / "model.c", manifest).open()
    (artifact / "model.h").unlink()
    with pytest.raises(BundleError, match=r"model\.h cannot be read"):
        NativeRuntime(artifact / "model.c", manifest).open()


@needs_compiler
def test_another_shape_than_the_manifest_promises_is_refused(artifact, manifest):
    spec = dataclasses.replace(manifest.input, shape=(None, 1, 8, 2))
    with pytest.raises(BundleError, match=r"computes \(1, 4, 4, 4\) .* the manifest says \(1, 8, 2, 4\)"):
        NativeRuntime(artifact / "model.c", dataclasses.replace(manifest, input=spec)).open()


def test_a_library_that_does_not_load_is_unavailable(tmp_path):
    (tmp_path / "model.so").write_bytes(b"not a library")
    with pytest.raises(EngineError, match=r"cannot be loaded .*install a C compiler"):
        Network(tmp_path / "model.so", tmp_path / "weights.bin")


@needs_compiler
def test_a_closed_network_says_so(artifact):
    network = Network(native_engine.library(artifact), artifact / "weights.bin")
    assert network.memory > 0
    network.close()
    network.close()
    with pytest.raises(EngineError, match="was closed"):
        network.infer(np.zeros((1, *SHAPE), np.float32))


def test_the_compiler_of_the_environment_comes_first(tmp_path, monkeypatch):
    """Its arguments are part of what libraries are kept under: they decide what is compiled."""
    script = tmp_path / "mycc"
    script.write_text("#!/bin/sh\necho my compiler 1.0\n", encoding="utf-8")
    script.chmod(0o755)
    monkeypatch.setenv("CC", f"{script} -x")
    assert native_engine.find_compiler() == ([str(script), "-x"], "-x my compiler 1.0\n")


def test_the_adapter_imports_little():
    code = (
        "import robust_edge_runtimes.formats.native.runtime, sys; "
        "print([m for m in ('torch', 'onnx') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"
