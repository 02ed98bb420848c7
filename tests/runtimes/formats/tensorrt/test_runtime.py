"""The engine's code against stand-ins for six TensorRT versions; none of it has run on a GPU here."""

from __future__ import annotations

import ctypes
import importlib
import json
import shutil
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from robust_edge_runtimes import load
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import BackendUnavailable, BundleError, InputError
from robust_edge_runtimes.core.files import sha256_of
from robust_edge_runtimes.formats.cuda.errors import EngineError
from robust_edge_runtimes.formats.cuda.library import Cuda
from robust_edge_runtimes.formats.tensorrt.engine.build import build, import_tensorrt
from robust_edge_runtimes.formats.tensorrt.engine.execute import Engine
from robust_edge_runtimes.formats.tensorrt.engine.open_engine import open_engine
from robust_edge_runtimes.formats.tensorrt.engine.settings import Settings

pytest.importorskip("onnxruntime", reason="the stand-ins run the engines' ONNX on it")
standins = importlib.import_module("tests.runtimes.formats.tensorrt.standins")

RECIPE = {"flags": [], "typed": False, "calibration": None, "max_batch": 8, "workspace_mib": 64, "tensorrt": "8.2"}
PRECISE = [v for v in standins.VERSIONS if standins.number(v) < (11, 0)]
SHAPE = (1, 4, 4)


@pytest.fixture
def cudart():
    return standins.Cudart()


@pytest.fixture
def cuda(cudart, monkeypatch):
    monkeypatch.setattr(Cuda, "_open", staticmethod(lambda: cudart))
    return Cuda()


@pytest.fixture
def settings(sealed, tmp_path):
    """settings(**changes) of the linear classifier's file."""

    def make(**changes):
        given = dict(names=("images", "logits"), max_batch=8, workspace=64, cache=tmp_path / "cache")
        return Settings(sealed / "model.onnx", SHAPE, **{**given, **changes})

    return make


@pytest.mark.parametrize("version", standins.VERSIONS)
@pytest.mark.parametrize("count", [1, 2, 8, 19])
def test_every_version_computes_the_logits(version, count, settings, cuda, cudart, golden):
    calls = []
    opened = open_engine(settings(), log=lambda text: None, cuda=cuda, trt=standins.module(version, calls=calls))
    np.testing.assert_array_equal(opened.infer(golden.clean[:count]), _expected(golden, count))
    opened.close()
    assert not cudart.memory
    assert not cudart.streams
    how = {value for name, value in calls if name == "run"}
    assert how == {"v2" if standins.number(version) < (8, 5) else "v3"}


def _expected(golden, count):
    return golden.clean_logits[:count]


@pytest.mark.parametrize("version", standins.VERSIONS)
def test_a_fixed_batch_needs_no_profile(version, write_bundle, golden, cuda, tmp_path):
    folder = write_bundle(tmp_path / "fixed", batch=4)
    fixed = Settings(folder / "model.onnx", SHAPE, ("images", "logits"), batch=4, cache=tmp_path / "c")
    opened = open_engine(fixed, log=lambda text: None, cuda=cuda, trt=standins.module(version))
    np.testing.assert_allclose(opened.infer(golden.clean[:4]), golden.clean_logits[:4], rtol=1e-6)


@pytest.mark.parametrize("version", standins.VERSIONS)
def test_workspace_and_network_as_the_version_wants_them(version, settings, cuda):
    calls = []
    build(standins.module(version, calls=calls), settings(typed=True))
    found, release = dict(calls), standins.number(version)
    assert found.get("max_workspace_size", found.get("workspace WORKSPACE")) == 64 << 20
    assert ("max_workspace_size" in found) == (release < (8, 4))
    assert found["network"] == (1 if release < (10, 0) else 3 if release < (11, 0) else 2)


@pytest.mark.parametrize("version", standins.VERSIONS)
def test_precision_flags_until_they_are_gone(version, settings):
    calls, wanted = [], settings(flags=["FP16", "SPARSE_WEIGHTS"])
    trt = standins.module(version, calls=calls)
    if version in PRECISE:
        build(trt, wanted)
        assert dict(calls)["flags"] == ["FP16", "SPARSE_WEIGHTS"]
    else:
        with pytest.raises(EngineError, match=r"11\.1\.0 has no flag FP16"):
            build(trt, wanted)
        build(trt, settings(flags=["SPARSE_WEIGHTS"]))
        assert dict(calls)["flags"] == ["SPARSE_WEIGHTS"]


@pytest.mark.parametrize(
    ("version", "head"),
    [("8.2.1.9", "8201"), ("8.5.2.2", "8502"), ("8.6.1", "8601"), ("10.3.0", "100300"), ("10.16.0", "101600")],
)
def test_calibration_comes_from_the_file_under_the_versions_own_name(version, head, settings, tmp_path):
    path, calls = tmp_path / "calibration.cache", []
    path.write_text("TRT-0-EntropyCalibration2\nimages: 3c010a14\n")
    build(standins.module(version, calls=calls), settings(flags=["INT8"], calibration=path))
    assert dict(calls)["calibration"] == f"TRT-{head}-EntropyCalibration2\nimages: 3c010a14\n"


def test_profiles_are_one_image_and_the_most(settings):
    data = build(standins.module("10.3.0"), settings())
    profiles = json.loads(data.split(b"\n", 1)[0])["profiles"]
    assert [profile["images"] for profile in profiles] == [[[1, *SHAPE]] * 3, [[1, *SHAPE], [8, *SHAPE], [8, *SHAPE]]]


def test_an_engine_is_built_once_and_kept_under_all_that_it_depends_on(settings, cuda, cudart, tmp_path):
    lines = []

    def opened(version="10.3.0", **changes):
        lines.clear()
        open_engine(settings(**changes), log=lines.append, cuda=cuda, trt=standins.module(version)).close()
        return [line for line in lines if "building" in line]

    assert opened()
    assert not opened()
    for change in ({"flags": ["FP16"]}, {"typed": True}, {"version": "10.16.0"}):
        assert opened(**change), change
        assert not opened(**change), change
    cudart.cudaDeviceGetAttribute = lambda pointer, attribute, device: setattr(pointer._obj, "value", 9) or 0
    assert opened()


def test_what_somebody_asked_for_stays(settings, cuda):
    """A board that builds with a smaller workspace only is not asked to build with the recipe's afterwards."""
    calls, lines = [], []
    trt = standins.module("10.3.0", calls=calls)

    def opened(**changes):
        lines.clear()
        given = settings(**changes)
        open_engine(given, log=lines.append, cuda=cuda, trt=trt).close()
        return bool(lines), given.max_batch, given.workspace

    assert opened() == (True, 8, 64)
    assert opened(max_batch=4, workspace=32) == (False, 8, 64)  # of the recipe, which nobody asked for
    assert opened(max_batch=4, workspace=32, asked=["max_batch", "workspace"]) == (True, 4, 32)
    assert opened() == (False, 4, 32)
    assert opened(workspace=32, asked=["workspace"]) == (False, 4, 32)
    assert opened(workspace=16, asked=["workspace"]) == (True, 8, 16)
    assert [value >> 20 for name, value in calls if name == "workspace WORKSPACE"] == [64, 32, 16]


def test_a_cache_that_cannot_be_written_is_one_line_before_minutes_pass(settings, cuda, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="set ROBUST_EDGE_CACHE to a writable folder"):
        open_engine(settings(cache=tmp_path / "file" / "cache"), log=print, cuda=cuda, trt=unbuildable())


def unbuildable():
    trt = standins.module("10.3.0")
    trt.Builder = lambda logger: pytest.fail("built")
    return trt


def test_a_missing_file_of_the_bundle_is_one_line(settings, cuda, tmp_path):
    given = settings()
    given.onnx = tmp_path / "gone.onnx"
    with pytest.raises(EngineError, match=r"the bundle is damaged: .*gone\.onnx"):
        open_engine(given, log=print, cuda=cuda, trt=standins.module("10.3.0"))


@pytest.mark.parametrize("damage", ["engine", "note", "swapped"])
def test_a_damaged_engine_is_built_again(damage, settings, cuda, tmp_path):
    trt = standins.module("10.3.0")
    open_engine(settings(), log=print, cuda=cuda, trt=trt).close()
    (path,) = (tmp_path / "cache").glob("*.engine")
    whole = path.read_bytes()
    if damage == "engine":
        path.write_bytes(whole[:-1])
    elif damage == "note":
        Path(f"{path}.json").write_text("{}")
    else:
        open_engine(settings(flags=["FP16"]), log=print, cuda=cuda, trt=trt).close()
        (other,) = set((tmp_path / "cache").glob("*.engine")) - {path}
        shutil.copy(other, path)
        shutil.copy(f"{other}.json", f"{path}.json")
    lines = []
    open_engine(settings(), log=lines.append, cuda=cuda, trt=trt).close()
    assert "built again" in lines[0]
    assert path.read_bytes() == whole


def test_timings_are_kept_for_one_version_and_gpu_and_dropped_if_foreign(settings, cuda, tmp_path):
    calls = []
    trt = standins.module("10.3.0", calls=calls, known_timings=[b"+"])
    for _ in range(2):
        open_engine(settings(), log=print, force=True, cuda=cuda, trt=trt).close()
    assert [value for name, value in calls if name == "timings"] == [b"", b"+"]
    calls.clear()
    open_engine(settings(), log=print, force=True, cuda=cuda, trt=trt).close()  # b"++" is not known
    assert [value for name, value in calls if name == "timings"] == [None, b""]


def test_what_tensorrt_refuses_is_one_line(settings, cuda):
    with pytest.raises(EngineError, match=r"8\.5\.2\.2 cannot read .*model\.onnx: In node 3: UNSUPPORTED_NODE"):
        build(standins.module("8.5.2.2", parses=False), settings())
    with pytest.raises(EngineError, match="swap"):
        build(standins.module("8.2.1.9", builds=False), settings())
    data = build(standins.module("8.6.1"), settings())
    with pytest.raises(EngineError, match=r"10\.3\.0 cannot load the engine"):
        Engine(standins.module("10.3.0"), cuda, settings(), data)


def test_a_cuda_error_is_named(cuda, cudart):
    with pytest.raises(EngineError, match="cudaMemcpy failed with CUDA error 1"):
        cuda.upload(12345, np.zeros(4, np.float32))
    cudart.cudaMalloc = lambda pointer, size: 2
    with pytest.raises(EngineError, match="cudaMalloc failed with CUDA error 2"):
        cuda.allocate(16)


def test_missing_libraries_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match="on a Jetson use the system's python3"):
        import_tensorrt()

    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(EngineError, match="LD_LIBRARY_PATH"):
        Cuda()


# The runtime on a whole bundle.


@pytest.fixture
def bundle_for(sealed, forge, tmp_path, monkeypatch):
    """bundle_for(recipe) -> a TensorRT bundle of the linear classifier."""
    monkeypatch.setenv("ROBUST_EDGE_CACHE", str(tmp_path / "engines"))

    def make(recipe=RECIPE):
        folder = Path(shutil.copytree(sealed, tmp_path / "trt"))
        (folder / "engine.json").write_text(json.dumps(recipe))

        def edit(value):
            value["artifact"]["format"] = "tensorrt"
            blob = (folder / "engine.json").read_bytes()
            value["files"]["engine.json"] = {"sha256": sha256_of(folder / "engine.json"), "bytes": len(blob)}

        return forge(folder, edit)

    return make


@pytest.mark.parametrize("version", standins.VERSIONS)
def test_the_runtime_runs_a_bundle(version, bundle_for, cuda, golden, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", standins.module(version))
    with load(bundle_for()) as model:
        assert (model.info.backend, model.info.version, model.info.device) == ("tensorrt", version, "sm87-16")
        np.testing.assert_array_equal(model.infer(golden.clean), golden.clean_logits)


@pytest.mark.parametrize("version", ["8.2.1.9", "10.3.0"])
def test_eight_threads_of_a_thousand_calls_get_the_logits_of_one(version, bundle_for, cuda, golden, monkeypatch):
    """Buffers and context are shared: without the lock, threads would read each other's logits."""
    monkeypatch.setitem(sys.modules, "tensorrt", standins.module(version))
    with load(bundle_for()) as model:

        def wrong(worker):
            turns = (np.arange(1000) * (2 * worker + 1)) % len(golden.clean)
            return sum(not np.array_equal(model.infer(golden.clean[[i]])[0], golden.clean_logits[i]) for i in turns)

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(wrong, range(8))) == [0] * 8


def test_closed_in_the_middle_it_says_so_and_frees_nothing_in_use(bundle_for, cuda, cudart, golden, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", standins.module("10.3.0"))
    model, waiting, go_on = load(bundle_for()), threading.Event(), threading.Event()
    profile, real = model._engine._profiles[0], model._engine._profiles[0].infer

    def slow(images):
        waiting.set()
        assert go_on.wait(10)
        return real(images)

    monkeypatch.setattr(profile, "infer", slow)
    with ThreadPoolExecutor(3) as pool:
        running = pool.submit(model.infer, golden.clean[:1])
        assert waiting.wait(10)
        closing = pool.submit(model.close)
        late = pool.submit(model._engine.infer, golden.clean[:1])
        assert cudart.memory
        go_on.set()
        np.testing.assert_array_equal(running.result(10), golden.clean_logits[:1])
        closing.result(10)
        assert not cudart.memory
        assert late.exception(10) is None or "the engine was closed" in str(late.exception())
    with pytest.raises(InputError, match="not open"):
        model.infer(golden.clean[:1])


def test_without_tensorrt_it_is_not_available(bundle_for, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendUnavailable, match="runs on TensorRT"):
        load(bundle_for())


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        [],
        {**RECIPE, "flags": None},
        {**RECIPE, "max_batch": "many"},
        {**RECIPE, "max_batch": -1},
        {**RECIPE, "workspace_mib": 0},
        {k: v for k, v in RECIPE.items() if k != "typed"},
    ],
)
def test_a_recipe_that_is_none_is_a_bundle_error(recipe, bundle_for, cuda, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", standins.module("10.3.0"))
    with pytest.raises(BundleError, match="no TensorRT recipe"):
        load(bundle_for(recipe))


def test_the_recipe_cannot_name_files_outside_the_bundle(bundle_for):
    folder = bundle_for({**RECIPE, "calibration": "../../etc/passwd"})
    found = Settings.of_bundle(folder)
    assert found.calibration == folder / "passwd"
    assert open_bundle(folder).artifact_path == found.onnx
