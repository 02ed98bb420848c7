"""Every adapter that runs on a CPU, called from eight threads at once."""

from __future__ import annotations

import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from robust_edge_runtimes.core.bundle import seal
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.golden import write_golden
from robust_edge_runtimes.load import load

THREADS, CALLS = 8, 1000


@pytest.fixture(scope="module")
def csr_bundle(linear, make_golden, make_manifest, tmp_path_factory):
    """The linear classifier as sparse-CSR TorchScript."""
    torch = pytest.importorskip("torch", reason="CSR bundles run on torch")
    pytest.importorskip("scipy", reason="CSR matrices are made by scipy")
    import dataclasses

    from robust_edge_exporters.artifact import ExportSettings
    from robust_edge_exporters.formats.csr.export import export_csr
    from robust_edge_exporters.target import target_named

    layer = torch.nn.Linear(16, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(linear.weight))
        layer.bias.copy_(torch.from_numpy(linear.bias))
    network = torch.nn.Sequential(torch.nn.Flatten(), layer).eval().requires_grad_(False)
    folder = tmp_path_factory.mktemp("csr") / "bundle"
    folder.mkdir()
    target = target_named("x86-cpu-csr")
    found = export_csr(network, (1, 4, 4), target, str(folder), ExportSettings(options={"csr_threshold": 1.0}))
    golden = make_golden(linear)
    write_golden(folder / "golden.npz", golden)
    manifest = make_manifest(linear, golden)
    artifact = dataclasses.replace(manifest.artifact, file=found.file, format="csr", opset=None, ir_version=None)
    seal(folder, dataclasses.replace(manifest, target=target.name, artifact=artifact))
    return folder


@pytest.fixture(scope="module")
def native_bundle(linear, make_golden, make_manifest, tmp_path_factory):
    """The linear classifier as C, with its library."""
    onnx = pytest.importorskip("onnx", reason="the C is written from an ONNX file")
    import dataclasses

    from robust_edge_exporters.native import export_native
    from robust_edge_runtimes.core.manifest import Companion
    from robust_edge_runtimes.formats.native import engine as native_engine

    if native_engine.find_compiler() is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("native") / "bundle"
    folder.mkdir()
    program = folder.parent / "model.onnx"
    onnx.save(linear.program(), program)
    export_native(program, folder)
    library = native_engine.compile_library(folder)
    golden = make_golden(linear)
    write_golden(folder / "golden.npz", golden)
    manifest = make_manifest(linear, golden)
    companions = tuple(Companion(name, "", 0) for name in sorted(["model.h", "weights.bin", library.name]))
    artifact = dataclasses.replace(
        manifest.artifact, file="model.c", format="native", opset=None, ir_version=None, companions=companions
    )
    seal(folder, dataclasses.replace(manifest, target="x86-cpu-sparse", artifact=artifact))
    return folder


@pytest.fixture(params=["onnx", "csr", "native"])
def folder(request, sealed):
    if request.param == "onnx":
        pytest.importorskip("onnxruntime", reason="ONNX bundles run on onnxruntime")
        return sealed
    return request.getfixturevalue(f"{request.param}_bundle")


def at_once(work):
    """Run `work(k)` in eight threads that start together; their results in order."""
    gate = threading.Barrier(THREADS)

    def run(k):
        gate.wait()
        return work(k)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def test_a_thousand_inferences_in_each_of_eight_threads_are_those_of_one(folder, golden):
    images = golden.clean
    with load(folder) as model:
        alone = [model.infer(images[i : i + 1]) for i in range(len(images))]

        def work(k):
            wrong = 0
            for turn in range(CALLS):
                i = (k * 7 + turn) % len(images)
                wrong += not np.array_equal(model.infer(images[i : i + 1]), alone[i])
            return wrong

        assert at_once(work) == [0] * THREADS
    assert np.abs(np.concatenate(alone) - golden.clean_logits).max() < 1e-4


def test_the_filters_of_warnings_are_left_alone(folder, golden):
    """They belong to all threads: to change them for a while is to change them for everybody."""
    with load(folder) as model, warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("error")
        patch.setattr(warnings, "catch_warnings", None)
        image = golden.clean[:1].copy()
        image.flags.writeable = False
        assert model.infer(image).shape == (1, 4)


def test_closed_in_the_middle_it_says_so_and_nothing_else(folder, golden):
    image = golden.clean[:1]
    for _ in range(5):
        model = load(folder)
        alone = model.infer(image)

        def work(k, model=model, alone=alone):
            if k == 0:
                model.close()
                return True
            try:
                return all(np.array_equal(model.infer(image), alone) for _ in range(50))
            except InputError as error:
                return "not open" in str(error)

        assert at_once(work) == [True] * THREADS


def test_torch_has_no_threads_in_a_fork_of_a_process_that_has_used_them(csr_bundle, golden, monkeypatch):
    from robust_edge_runtimes.formats.csr.runtime import CsrRuntime

    monkeypatch.setattr(CsrRuntime, "_parallel", None)
    with load(csr_bundle, threads=2) as model:
        model.infer(golden.clean[:1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 0)  # in a real fork, it would hang without the error
        with pytest.raises(InputError, match="PyTorch had threads before this process was forked"):
            load(csr_bundle, threads=2)
        with load(csr_bundle, threads=1) as model:
            model.infer(golden.clean[:1])
    load(csr_bundle, threads=2).close()


def test_many_that_open_it_open_it_once(Fake, opened, linear):
    fake = Fake(opened.manifest, linear.logits)
    at_once(lambda _: fake.open())
    at_once(lambda _: fake.close())
    assert fake.events == ["open", "close"]
