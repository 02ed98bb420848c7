from __future__ import annotations

import builtins
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import BackendUnavailable, BundleError
from robust_edge_runtimes.formats.table import runtime_class
from robust_edge_runtimes.load import load

ort = pytest.importorskip("onnxruntime", reason="this adapter runs on onnxruntime")


def test_logits_are_those_of_the_matrix_product(sealed, linear, golden):
    with load(sealed) as model:
        for images in (golden.clean, golden.attacked, golden.clean[:1]):
            assert np.allclose(model.infer(images), linear.logits(images), rtol=1e-5, atol=1e-5)


def test_info_tells_what_really_runs(sealed):
    with load(sealed, threads=2) as model:
        info = model.info
        options = model._session.get_session_options()
    assert (info.backend, info.version, info.device) == ("onnxruntime", ort.__version__, "cpu")
    assert (info.provider, info.threads) == ("CPUExecutionProvider", 2)
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)


def test_another_provider_than_asked_for_is_refused(sealed, monkeypatch):
    class Session(ort.InferenceSession):
        def get_providers(self):
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    monkeypatch.setattr(ort, "InferenceSession", Session)
    with pytest.raises(BackendUnavailable, match=r"ONNX Runtime uses \[.*\] instead of CPUExecutionProvider"):
        load(sealed)


def test_eight_threads_share_one_session(sealed, golden):
    with load(sealed) as model:
        expected = [model.infer(golden.clean[i : i + 8]) for i in range(0, 40, 8)]
        with ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(model.infer, golden.clean[8 * (i % 5) : 8 * (i % 5) + 8]) for i in range(400)]
            answers = [job.result() for job in jobs]
    assert all(np.array_equal(answer, expected[i % 5]) for i, answer in enumerate(answers))


def test_each_answer_is_an_array_of_its_own(sealed, golden):
    with load(sealed) as model:
        first = model.infer(golden.clean[:2])
        kept = first.copy()
        second = model.infer(golden.clean[2:4])
        second[:] = -1
    assert np.array_equal(first, kept)


def test_the_input_is_left_alone(sealed, golden):
    images = golden.clean.copy()
    with load(sealed) as model:
        model.infer(images)
    assert np.array_equal(images, golden.clean)


def test_closing_drops_the_session(sealed):
    model = load(sealed)
    model.close()
    model.close()
    assert model._session is None


@pytest.mark.parametrize(("inputs", "outputs"), [("x", "logits"), ("images", "y"), ("x", "y")])
def test_other_port_names_are_a_bundle_error(write_bundle, linear, tmp_path, inputs, outputs):
    folder = write_bundle(tmp_path / "b", program=linear.program(inputs=inputs, outputs=outputs))
    with pytest.raises(BundleError, match=r"has the inputs and outputs .*'images', 'logits'\]; export it again"):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"not an onnx file", b"\x08\x08" * 100])
def test_an_artifact_that_is_no_model_is_a_bundle_error(bundle, forge, content):
    (bundle / "model.onnx").write_bytes(content)
    with pytest.raises(BundleError, match="cannot load"):
        load(forge(bundle))


def test_an_artifact_that_fails_while_running_is_a_bundle_error(write_bundle, linear, tmp_path):
    folder = write_bundle(tmp_path / "b", program=linear.program(batch=2))
    with load(folder) as model, pytest.raises(BundleError, match="cannot run"):
        model.infer(np.zeros((3, 1, 4, 4), np.float32))


def test_a_missing_backend_names_the_command(opened, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "onnxruntime":
            raise ImportError("No module named 'onnxruntime'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BackendUnavailable, match=r"pip install 'robust-edge\[onnxruntime\]'"):
        load(opened)


def test_weights_outside_the_artifact_are_not_read(write_bundle, linear, tmp_path):
    """ONNX can point at weights in other files, which no hash of the bundle covers."""
    onnx = pytest.importorskip("onnx", reason="the model is written with onnx")
    secret = tmp_path / "secret.bin"
    secret.write_bytes(linear.weight.tobytes())
    for location in ("../secret.bin", str(secret), "unlisted.bin"):
        program = linear.program()
        tensor = program.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        folder = write_bundle(tmp_path / "b", program=program)
        (folder / "unlisted.bin").write_bytes(linear.weight.tobytes())
        assert "unlisted.bin" not in open_bundle(folder).manifest.files
        with pytest.raises(BundleError):
            load(folder)
        (folder / "unlisted.bin").unlink()


@pytest.mark.parametrize(("old", "new"), [(b"images", b"imag\xff\xff"), (b"Flatten", b"Flatt\xff\xff")])
def test_names_that_are_no_text_are_a_bundle_error_and_print_nothing(bundle, forge, capfd, old, new):
    """Only results go to stdout; ONNX Runtime would report its own second attempt there."""
    path = bundle / "model.onnx"
    path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(BundleError, match="cannot load"):
        load(forge(bundle))
    assert capfd.readouterr().out == ""


def test_cuda_is_refused_where_it_is_not_and_never_replaced_by_the_cpu(opened, monkeypatch):
    manifest = opened.manifest
    if "CUDAExecutionProvider" in ort.get_available_providers():
        pytest.skip("this machine has CUDA")
    with pytest.raises(BackendUnavailable, match=r"has no CUDAExecutionProvider, only .*onnxruntime-gpu"):
        runtime_class("onnx-cuda")(opened.artifact_path, manifest).open()
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    cpu = ort.InferenceSession

    class Fallen(cpu):
        def __init__(self, path, options, providers, enable_fallback):
            assert providers == ["CUDAExecutionProvider"]
            super().__init__(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "InferenceSession", Fallen)
    with pytest.raises(BackendUnavailable, match=r"ONNX Runtime uses \[.*\] instead of CUDAExecutionProvider"):
        runtime_class("onnx-cuda")(opened.artifact_path, manifest).open()
