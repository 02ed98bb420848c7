"""8-bit files for another device: judged by its arithmetic, with what this CPU's kernels would do beside it."""

from __future__ import annotations

import platform

import numpy as np
import pytest

pytest.importorskip("onnx", reason="8-bit files are exported")
pytest.importorskip("onnxruntime", reason="8-bit files are executed")

from robust_edge.config.export import ExportChoices, GoldenSettings
from robust_edge.export import export_run
from robust_edge.verification import kernels
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.verify import verify_bundle
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.formats.onnx import format as onnx_format
from robust_edge_runtimes.formats.onnx.runtime import OnnxRuntime
from robust_edge_runtimes.formats.onnx.unfused import UnfusedOnnxRuntime
from robust_edge_runtimes.verdict.measurement import Budget


@pytest.fixture(scope="module")
def bundles(sparse_run, tmp_path_factory):
    """By target; arm-cpu-int8 uses all 8 bits of its weights, x86-cpu-int8 seven of them."""
    found = {}
    for name in ("arm-cpu-int8", "x86-cpu-int8"):
        path = tmp_path_factory.mktemp("int8") / name
        choices = ExportChoices(calibration=40)
        export_run(sparse_run, target_named(name), path, golden=GoldenSettings(images=60, steps=1), choices=choices)
        found[name] = open_bundle(path)
    return found


@pytest.fixture
def on(monkeypatch):
    """on(machine, vnni): this machine seems to be that one; the kernels are its own."""

    def seem(machine, vnni=None):
        monkeypatch.setattr(platform, "machine", lambda: machine)
        monkeypatch.setattr(onnx_format, "has_vnni", lambda: vnni)

    return seem


@pytest.mark.parametrize(
    ("machine", "target", "expected"),
    [
        ("x86_64", "arm-cpu-int8", UnfusedOnnxRuntime),
        ("x86_64", "x86-cpu-int8", OnnxRuntime),
        ("aarch64", "arm-cpu-int8", OnnxRuntime),
        ("aarch64", "x86-cpu-int8", OnnxRuntime),
    ],
)
def test_the_kernels_that_judge(machine, target, expected, bundles, on):
    on(machine)
    with kernels.device_runtime(bundles[target]) as model:
        assert type(model) is expected


@pytest.mark.parametrize(
    ("vnni", "words"),
    [(True, "(with VNNI)"), (False, "(without VNNI, which saturates)"), (None, "(with or without VNNI)")],
)
def test_what_the_kernels_of_this_cpu_give_is_shown_beside_the_verdict(vnni, words, bundles, sparse_run, on):
    on("x86_64", vnni)
    verdict = verify_bundle(bundles["arm-cpu-int8"], sparse_run, Budget(), VerifySettings(modes=("replay",), seed=0))
    (note,) = (note for note in verdict.notes if "8-bit kernels on this CPU" in note)
    assert words in note
    assert "as the file states them" in note


def test_the_note_names_the_distance_of_both_kernels(bundles, on, monkeypatch):
    """Saturating kernels: every other logit is cut off at half of the largest one."""
    on("x86_64", vnni=False)
    bundle = bundles["arm-cpu-int8"]
    images = bundle.golden().clean
    real = OnnxRuntime.infer_impl

    def saturated(self, batch):
        logits = real(self, batch)
        return logits if isinstance(self, UnfusedOnnxRuntime) else np.minimum(logits, 0.5 * largest)

    with kernels.device_runtime(bundle) as model:
        own = np.concatenate([model.infer(image[None]) for image in images])
        largest = np.abs(own).max()
        monkeypatch.setattr(OnnxRuntime, "infer_impl", saturated)
        (note,) = kernels.kernel_notes(bundle, model, images)
    from_mean = np.abs(own - own.mean(axis=1, keepdims=True)).max()
    assert note.split("logits ")[1].startswith(f"{0.5 * largest / min(largest, from_mean):.2g} ")


@pytest.mark.parametrize(("machine", "target"), [("aarch64", "arm-cpu-int8"), ("x86_64", "x86-cpu-int8")])
def test_nothing_is_shown_where_the_cpus_own_kernels_judge(machine, target, bundles, on):
    on(machine)
    bundle = bundles[target]
    with kernels.device_runtime(bundle) as model:
        assert kernels.kernel_notes(bundle, model, bundle.golden().clean) == ()
