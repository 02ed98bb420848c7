"""The sparse engine as a target: a bundle of C source, weights and what this machine compiled them to."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from robust_edge_exporters.bundle import export_bundle
from robust_edge_exporters.dense_baseline import with_dense_baseline
from robust_edge_exporters.formats.native.export import distribution_notes
from robust_edge_exporters.formats.onnx.without_weights import with_random_weights, without_weights
from robust_edge_exporters.native.export import LayerReport, NativeExport
from robust_edge_exporters.native.kernels.table import KERNELS
from robust_edge_exporters.target import target_named
from robust_edge_exporters.tolerance import logit_tolerance
from robust_edge_runtimes.bench.latency import Contender, bench
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import BackendUnavailable, BundleError, ExportError, InputError
from robust_edge_runtimes.formats.native import engine as native_engine
from robust_edge_runtimes.load import load
from robust_edge_runtimes.modes.replay import replay
from robust_edge_runtimes.modes.settings import ModeSettings
from robust_edge_runtimes.verdict.inspection import inspect_artifact
from robust_edge_runtimes.verdict.judge import judge
from robust_edge_runtimes.verdict.measurement import Budget
from robust_edge_runtimes.verdict.subject import subject_of

pytest.importorskip("onnxruntime", reason="the dense baseline runs on it")
pytestmark = pytest.mark.skipif(native_engine.find_compiler() is None, reason="there is no C compiler")
TARGET = {"x86_64": "x86-cpu-sparse", "AMD64": "x86-cpu-sparse"}.get(os.uname().machine, "arm-cpu-sparse")
OTHER = {"x86-cpu-sparse": "arm-cpu-sparse", "arm-cpu-sparse": "x86-cpu-sparse"}[TARGET]
SOURCES = {"Makefile", "bench.c", "model.h", "predict.c", "program.h", "weights.bin"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Libraries of these tests, kept apart from the user's and shared among them."""
    monkeypatch.setenv("ROBUST_EDGE_CACHE", str(tmp_path_factory.getbasetemp() / "engine-cache"))


@pytest.fixture(scope="module")
def written(model, request_for, tmp_path_factory):
    """written[precision]: a bundle, exported once; read it, do not change it."""
    folder = tmp_path_factory.mktemp("native")
    for precision in ("fp32", "fp16"):
        export_bundle(request_for(model, target=target_named(TARGET), precision=precision), folder / precision)
    return {precision: folder / precision for precision in ("fp32", "fp16")}


@pytest.fixture
def bundle(written, tmp_path):
    """A copy that the test may break."""
    return shutil.copytree(written["fp32"], tmp_path / "bundle")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_bundle_opens_and_passes_its_own_verdict(written, precision, request_for, model):
    opened = open_bundle(written[precision])
    with load(opened) as runtime:
        subject = subject_of(opened, runtime)
        golden = subject.golden
        verdict = judge(inspect_artifact(subject), [replay(subject, ModeSettings())], Budget(7, 7))
        images = golden.clean[:9]
        assert np.array_equal(runtime.infer(images[:1]), runtime.infer(images)[:1])
    assert verdict.passed, verdict.reasons
    error, tolerance = opened.manifest.parity.max_logit_error, golden.tolerance
    request = request_for(model)
    own = logit_tolerance(model, request.golden.clean, precision, request.target, on_device=False)
    assert error < tolerance == own
    assert error < (1e-6 if precision == "fp32" else 1e-2)
    assert (precision == "fp16") == (error > 1e-5)


def test_every_file_of_the_model_is_named_sized_and_hashed(written):
    opened = open_bundle(written["fp32"])
    artifact = opened.manifest.artifact
    libraries = [item.file for item in artifact.companions if item.file.endswith(".so")]
    assert len(libraries) == 1
    assert {item.file for item in artifact.companions} == SOURCES | set(libraries)
    assert all(opened.manifest.files[item.file].sha256 == item.sha256 for item in artifact.companions)
    assert artifact.total_bytes == sum((opened.path / name).stat().st_size for name in artifact.files)
    size = opened.manifest.size
    assert (size.artifact, size.weights) == (artifact.total_bytes, (opened.path / "weights.bin").stat().st_size)
    assert size.weights < size.compressed < size.artifact
    assert size.dense == 4 * opened.manifest.sparsity.weights


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this system")
def test_the_identity_is_the_hash_of_what_sha256sum_prints(written):
    artifact = open_bundle(written["fp32"]).manifest.artifact
    printed = subprocess.run(["sha256sum", *artifact.files], cwd=written["fp32"], capture_output=True, check=True)
    again = subprocess.run(["sha256sum"], input=printed.stdout, capture_output=True, check=True)
    assert again.stdout.decode().split()[0] == artifact.identity


def test_other_weights_are_another_artifact_for_verify_and_bench(written, bundle, forge):
    data = bytearray((bundle / "weights.bin").read_bytes())
    data[-1] ^= 1
    (bundle / "weights.bin").write_bytes(data)
    with pytest.raises(BundleError, match=r"weights\.bin is not the file that was exported"):
        open_bundle(bundle)
    changed, before = open_bundle(forge(bundle)).manifest.artifact, open_bundle(written["fp32"]).manifest.artifact
    assert changed.sha256 == before.sha256
    assert changed.identity != before.identity
    with pytest.raises(BundleError, match="damaged"):
        load(bundle)


@pytest.mark.parametrize("name", ["weights.bin", "model.h"])
def test_a_file_that_the_manifest_does_not_count_to_the_artifact_is_not_used(bundle, forge, name):
    def drop(value):
        value["artifact"]["companions"] = [item for item in value["artifact"]["companions"] if item["file"] != name]

    with pytest.raises(BundleError, match=f"{name} is not listed as a part of the artifact"):
        load(forge(bundle, drop))


def test_layers_name_kernel_density_and_multiply_adds(written, model):
    manifest = open_bundle(written["fp32"]).manifest
    kernels = {kernel.name for kernel in KERNELS}
    pixels = (36, 9, 1)
    assert len(manifest.layers) == 3
    for layer, weight, area in zip(
        manifest.layers, (model.first.weight, model.second.weight, model.head.weight), pixels, strict=True
    ):
        assert layer.form in kernels
        assert (layer.weights, layer.nonzero) == (weight.numel(), int((weight != 0).sum()))
        assert (layer.macs, layer.dense_macs) == (area * layer.nonzero, area * layer.weights)
    assert manifest.sparsity.nonzero == sum(layer.nonzero for layer in manifest.layers)


def test_a_distribution_of_zeros_that_costs_time_is_said():
    """The last layer computes one pixel, the first one a hundred."""

    def notes(*kept):
        layers = (
            LayerReport(f"w{index}", "Conv", index, "strips", count, 1000, pixels * count, pixels * 1000, count)
            for index, (count, pixels) in enumerate(zip(kept, (100, 1), strict=True))
        )
        export = NativeExport(Path(), (), (1, 1, 1), 1, tuple(layers), "fp32", 0, 0, {})
        return distribution_notes(export)

    assert notes(100, 100) == notes(10, 190) == ()
    (note,) = notes(190, 10)
    assert note.startswith(
        "10.0% of the weights are left, but 18.8% of the multiply-adds: the expected time is 1.9 times"
    )


def test_weights_too_small_for_fp16_are_counted_as_the_zeros_they_become(model, request_for, tmp_path):
    import copy

    tiny = copy.deepcopy(model)
    with torch.no_grad():
        rows = tiny.head.weight[0] != 0
        tiny.head.weight[0, rows] = 1e-9
    before = open_bundle(export_bundle(request_for(tiny, target=target_named(TARGET)), tmp_path / "a").path).manifest
    request = request_for(tiny, target=target_named(TARGET), precision="fp16")
    manifest = open_bundle(export_bundle(request, tmp_path / "b").path).manifest
    assert before.sparsity.nonzero - manifest.sparsity.nonzero == int(rows.sum()) > 0


def test_weights_too_large_for_fp16_are_named(model, request_for, tmp_path):
    import copy

    large = copy.deepcopy(model)
    with torch.no_grad():
        large.head.weight[0, 0] = 1e5
    with pytest.raises(
        ExportError, match=r"weight 'head\.weight' has the value 1e\+05, above the largest float16, 6\.55e\+04"
    ):
        export_bundle(request_for(large, target=target_named(TARGET), precision="fp16"), tmp_path / "b")


def test_the_same_export_has_the_same_bytes(written, model, request_for, tmp_path):
    export_bundle(request_for(model, target=target_named(TARGET)), tmp_path / "again")
    for path in written["fp32"].iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_a_fixed_batch_is_kept(model, request_for, tmp_path):
    export_bundle(request_for(model, target=target_named(TARGET), batch=7), tmp_path / "b")
    with load(tmp_path / "b") as runtime, pytest.raises(InputError, match="exactly 7 images"):
        runtime.infer(np.zeros((1, 1, 6, 6), np.float32))


def test_another_machine_s_bundle_holds_no_code_of_this_one(model, request_for, tmp_path):
    manifest = export_bundle(request_for(model, target=target_named(OTHER)), tmp_path / "b").manifest
    assert {item.file for item in manifest.artifact.companions} == SOURCES


def test_without_a_compiler_the_export_says_what_to_install(model, request_for, tmp_path, monkeypatch):
    monkeypatch.setattr(native_engine, "find_compiler", lambda: None)
    monkeypatch.setattr("robust_edge_exporters.formats.native.export.find_compiler", lambda: None)
    with pytest.raises(BackendUnavailable, match="apt install gcc"):
        export_bundle(request_for(model, target=target_named(TARGET)), tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_the_library_of_the_export_is_used_and_nothing_compiled(written, monkeypatch, tmp_path):
    monkeypatch.setenv("ROBUST_EDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(native_engine, "_compile", None)
    with load(written["fp32"]) as runtime:
        assert f"{runtime.info.version}.so" in open_bundle(written["fp32"]).manifest.artifact.files
    assert not (tmp_path / "cache").exists()


def test_eight_threads_of_a_caller_get_the_logits_of_one(written):
    opened = open_bundle(written["fp32"])
    images = opened.golden().clean
    with load(opened) as runtime:
        expected = [runtime.infer(image[None]) for image in images]

        def ask(worker):
            return all(
                np.array_equal(runtime.infer(images[i][None]), expected[i])
                for i in (np.arange(1000) * (2 * worker + 1)) % len(images)
            )

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(8)))


# The dense baseline.


def test_a_dense_onnx_is_timed_beside_it(written):
    given = [Contender("sparse", open_bundle(written["fp32"]))]
    with with_dense_baseline(given) as (contenders, baseline):
        dense = contenders[0].bundle.manifest
        assert baseline == 0
        assert dense.sparsity.keep == 1
        assert [layer.weights for layer in dense.sparsity.layers] == [72, 576, 288]
        assert (dense.artifact.format, dense.artifact.companions) == ("onnx", ())
        assert dense.target == TARGET.replace("-sparse", "")
        result = bench(contenders, baseline=baseline, images=4, seconds=0.02, min_samples=2)
    assert [entry.runtime.backend for entry in result.entries] == ["onnxruntime", "native"]
    assert [entry.dense_kernels for entry in result.entries] == [True, False]
    assert result.entries[1].artifact_bytes == open_bundle(written["fp32"]).manifest.artifact.total_bytes
    assert result.entries[1].artifact_sha256 == open_bundle(written["fp32"]).manifest.artifact.identity


def test_the_graph_is_the_network_but_for_its_weights(model, x86, tmp_path):
    from robust_edge_exporters.artifact import ExportSettings
    from robust_edge_exporters.formats.onnx.export import export_onnx
    from robust_edge_exporters.formats.onnx.weights import weights_of

    export_onnx(model, (1, 6, 6), x86, str(tmp_path), ExportSettings())
    program = onnx.load(str(tmp_path / "model.onnx"))
    emptied = without_weights(program)
    assert len(emptied.SerializeToString()) < len(program.SerializeToString()) - 4 * 900
    filled = with_random_weights(emptied)
    onnx.checker.check_model(filled)
    before, after = weights_of(program), weights_of(filled)
    assert {name: weight.shape for name, weight in before.items()} == {n: w.shape for n, w in after.items()}
    assert all((np.abs(weight) > 1e-6).all() and weight.dtype == np.float32 for weight in after.values())
    others = [[i for i in p.graph.initializer if i.name not in before] for p in (program, filled)]
    assert others[0] == others[1] != []


def test_a_bundle_without_its_graph_cannot_be_made_dense(bundle, forge):
    (bundle / "graph.onnx").unlink()
    opened = open_bundle(forge(bundle, lambda value: value["files"].pop("graph.onnx")))
    with pytest.raises(InputError, match=r"no graph\.onnx"), with_dense_baseline([Contender("b", opened)]):
        pytest.fail("entered")


# What a stranger does with it.


def started(folder, *arguments, **variables):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-W", "error", "-B", str(folder / "run.py"), *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder.parent, env={**environment, **variables}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_run_replays_with_numpy_alone(written, precision):
    script = (
        "import runpy, sys\n"
        "path, sys.argv = sys.argv[1], ['run.py', 'replay', '--threads', '2']\n"
        "try:\n"
        "    runpy.run_path(path, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    command = [sys.executable, "-B", "-c", script, str(written[precision] / "run.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *_, verdict, imported = done.stdout.splitlines()
    assert verdict == "PASS on 60 images"
    assert not {"torch", "onnx", "onnxruntime", "robust_edge_runtimes", "click"} & set(
        json.loads(imported.replace("'", '"'))
    )


def test_run_predicts_what_the_runtime_says(written, images, tmp_path):
    np.save(tmp_path / "x.npy", images[0])
    with load(written["fp32"]) as runtime:
        label, probability = runtime.classify(images[0])
    done = started(written["fp32"], "predict", tmp_path / "x.npy")
    assert done.stdout == f"{tmp_path / 'x.npy'}  {label}  {probability:.3f}\n", done.stderr


def test_run_compiles_for_a_machine_that_the_export_did_not_know_and_says_when_it_cannot(bundle, forge, tmp_path):
    def drop(value):
        for item in [item for item in value["artifact"]["companions"] if item["file"].endswith(".so")]:
            value["artifact"]["companions"].remove(item)
            del value["files"][item["file"]]

    forge(bundle, drop)
    done = started(bundle, "replay", PATH="/nonexistent", CC="", ROBUST_EDGE_CACHE=str(tmp_path / "none"))
    assert (done.returncode, done.stdout) == (3, "")
    assert "apt install gcc" in done.stderr
    assert done.stderr.count("\n") == 1
    done = started(bundle, "replay", ROBUST_EDGE_CACHE=str(tmp_path / "fresh"))
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "PASS on 60 images"), done.stderr
    assert len(list((tmp_path / "fresh").iterdir())) == 1


def test_run_says_where_it_could_not_keep_what_it_compiled(bundle, tmp_path):
    (tmp_path / "file").write_text("")
    shutil.rmtree(bundle / "__pycache__", ignore_errors=True)
    with pytest.raises(native_engine.EngineError, match="set ROBUST_EDGE_CACHE to a writable folder"):
        native_engine.library(bundle, cache=tmp_path / "file" / "cache")


def test_make_builds_library_archive_and_programs_inside_the_bundle(bundle, images):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    subprocess.run(["make", "-s", "-C", str(bundle), "CFLAGS=-O1"], check=True, capture_output=True)
    assert all((bundle / name).is_file() for name in ("libmodel.so", "libmodel.a", "bench", "predict"))
    command = [str(bundle / "predict"), str(bundle / "weights.bin")]
    said = subprocess.run(command, input=images[:5].tobytes(), capture_output=True, check=True).stdout.decode()
    with load(bundle) as runtime:  # what make leaves behind does not damage the bundle
        assert np.allclose([[float(x) for x in row.split()] for row in said.splitlines()], runtime.infer(images[:5]))


def test_an_operator_that_the_engine_lacks_leaves_nothing_behind(model, request_for, tmp_path):
    class Bounded(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, x):
            return torch.nn.functional.softsign(self.inner(x))

    with pytest.raises(ExportError, match="Abs at node"):
        export_bundle(
            dataclasses.replace(request_for(model, target=target_named(TARGET)), model=Bounded().eval()), tmp_path / "b"
        )
    assert list(tmp_path.iterdir()) == []
