from __future__ import annotations

import sys
import types

import pytest

from robust_edge_runtimes.core.errors import BackendUnavailable
from robust_edge_runtimes.diagnosis import diagnose
from robust_edge_runtimes.formats.backends import backends
from robust_edge_runtimes.formats.cuda import library
from robust_edge_runtimes.formats.cuda.errors import EngineError
from robust_edge_runtimes.formats.native.engine import find_compiler
from robust_edge_runtimes.formats.table import FORMATS
from robust_edge_runtimes.formats.tensorrt import format as tensorrt_format
from robust_edge_runtimes.load import load
from robust_edge_runtimes.present.doctor import diagnosis_table


def found():
    return {item.format: item for item in backends()}


@pytest.fixture
def install(monkeypatch):
    """install("torch", ...): a package that was never there, or None for one that is not."""

    def put(name, **attributes):
        made = types.ModuleType(name) if attributes else None
        for key, value in attributes.items():
            setattr(made, key, value)
        monkeypatch.setitem(sys.modules, name, made)

    return put


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(library, "Cuda", lambda: types.SimpleNamespace(gpu=lambda: "sm87x16"))


def test_every_format_with_a_runtime_is_tried():
    assert set(found()) >= set(FORMATS)


def test_each_has_either_what_runs_it_or_why_not_and_the_way_there():
    for item in backends():
        if item.runs_on is None:
            assert item.missing
            assert item.remedy
            assert "\n" not in item.missing
        else:
            assert item.missing is item.remedy is None


def test_what_is_said_of_onnx_is_what_load_does(sealed, install):
    pytest.importorskip("onnxruntime", reason="the bundle runs on onnxruntime")
    with load(sealed) as model:
        assert found()["onnx"].runs_on == f"onnxruntime {model.info.version}, {model.info.provider}"
    install("onnxruntime")
    with pytest.raises(BackendUnavailable):
        load(sealed)
    assert found()["onnx"].runs_on is None
    assert found()["onnx"].remedy == "pip install 'robust-edge[onnxruntime]'"


def test_a_provider_is_not_yet_a_gpu(install, monkeypatch):
    def none():
        raise EngineError("libcudart is not found")

    monkeypatch.setattr(library, "Cuda", none)
    install("onnxruntime", __version__="1.30", get_available_providers=lambda: ["CUDAExecutionProvider"])
    assert found()["onnx-cuda"].missing == "libcudart is not found"
    assert found()["onnx"].missing == "onnxruntime 1.30 has no CPUExecutionProvider, only CUDAExecutionProvider"


def test_gpus_are_named(install, gpu):
    install("onnxruntime", __version__="1.30", get_available_providers=lambda: ["CUDAExecutionProvider"])
    install("tensorrt", __version__="10.3.0")
    assert found()["onnx-cuda"].runs_on == "onnxruntime 1.30, CUDAExecutionProvider, GPU sm87x16"
    assert found()["tensorrt"].runs_on == "TensorRT 10.3.0, GPU sm87x16"


@pytest.mark.parametrize(("jetson", "remedy"), [(False, "robust-edge[tensorrt]"), (True, "nvidia-jetpack")])
def test_tensorrt_comes_another_way_on_a_jetson(install, monkeypatch, tmp_path, jetson, remedy):
    mark = tmp_path / "nv_tegra_release"
    if jetson:
        mark.write_text("# R36\n")
    monkeypatch.setattr(tensorrt_format, "JETSON", mark)
    install("tensorrt")
    assert remedy in found()["tensorrt"].remedy


@pytest.mark.parametrize("mkl", [True, False])
def test_torch_without_mkl_is_called_slow(install, mkl):
    backends_of_torch = types.SimpleNamespace(mkl=types.SimpleNamespace(is_available=lambda: mkl))
    install("torch", __version__="2.9", backends=backends_of_torch)
    assert found()["csr"].runs_on == ("torch 2.9" if mkl else "torch 2.9, without MKL: CSR products are slow")


def compiler(folder, script):
    path = folder / "cc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_compiler_must_compile(tmp_path, monkeypatch):
    path = compiler(tmp_path, '[ "$1" = --version ] && echo "cc 1.0" || { echo "no headers" >&2; exit 1; }')
    monkeypatch.setenv("CC", str(path))
    assert found()["native"].missing == f"{path} does not compile: no headers"
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert "no C compiler" in found()["native"].missing
    assert "gcc" in found()["native"].remedy


def test_a_compiler_that_compiles_is_named():
    if find_compiler() is None:
        pytest.skip("there is no C compiler")
    assert found()["native"].runs_on.split(": ")[0] in ("cc", "gcc", "clang")


def test_the_table_shows_both(install, gpu):
    install("tensorrt", __version__="10.3.0")
    install("onnxruntime")
    lines = diagnosis_table(diagnose()).splitlines()
    assert "tensorrt   yes  TensorRT engines: TensorRT 10.3.0, GPU sm87x16" in lines
    row = next(i for i, line in enumerate(lines) if line.startswith("onnx       no   ONNX on the CPU: "))
    assert lines[row + 1].strip() == "to install: pip install 'robust-edge[onnxruntime]'"
