"""Bundles that are not what their run exports: each is found by an export of the run, and the place is named."""

from __future__ import annotations

import json
import re
import shutil
import zipfile

import pytest

for needed in ("torch", "onnx", "onnxruntime", "sklearn"):
    pytest.importorskip(needed, reason=f"bundles are made, changed and judged with {needed}")

import onnx  # noqa: E402

from robust_edge.config.export import ExportChoices  # noqa: E402
from robust_edge.export import export_run  # noqa: E402
from robust_edge.verification.new_export import compare_with_run  # noqa: E402
from robust_edge_exporters.formats.csr.differences import csr_differences  # noqa: E402
from robust_edge_exporters.formats.native.integers import RANGES  # noqa: E402
from robust_edge_exporters.formats.onnx.without_weights import GRAPH  # noqa: E402
from robust_edge_exporters.native.int8 import calibrate  # noqa: E402
from robust_edge_exporters.target import target_named  # noqa: E402
from robust_edge_runtimes.core import bundle as bundles  # noqa: E402
from robust_edge_runtimes.core.errors import BundleError  # noqa: E402
from tests.attacks import forgery, scripts, surgery  # noqa: E402
from tests.attacks.rebuild.conftest import GOLDEN, TARGETS, differs  # noqa: E402


def in_onnx(change):
    """`change(program)`, applied to the bundle's ONNX file."""

    def write(path):
        program = onnx.load(str(path / "model.onnx"))
        (path / "model.onnx").write_bytes((change(program) or program).SerializeToString())

    return write


@pytest.mark.parametrize("key", [key for key in TARGETS if "nvidia" not in key and "TensorRT" not in key])
def test_the_runs_own_bundle_is_equal(key, honest, verified):
    verdict, reasons = verified(honest(key))
    assert verdict.rebuild.equal
    assert verdict.rebuild.differences == verdict.rebuild.versions == ()
    assert {"run.py", "Dockerfile", "requirements.txt", "labels.txt", "README.md"} < set(verdict.rebuild.compared)
    assert bundles.open_bundle(honest(key)).manifest.artifact.file in verdict.rebuild.compared
    assert not {"rebuild_differs", "library_differs"} & reasons
    assert verdict.remarks == ()


@pytest.mark.parametrize(
    ("target", "choices"),
    [
        (target_named("x86-cpu"), ExportChoices(compact=False)),
        (target_named("x86-cpu").with_opset(17), ExportChoices(batch=6)),
        (target_named("x86-cpu-int8"), ExportChoices(calibration=40, options={"int8_skip": "6"})),  # the largest layer
        (target_named("x86-cpu-csr"), ExportChoices(options={"csr_threshold": 0.0})),
    ],
)
def test_recorded_choices_are_made_again(target, choices, run, verified, tmp_path):
    export_run(run, target, tmp_path / "bundle", golden=GOLDEN, choices=choices)
    assert verified(tmp_path / "bundle")[0].rebuild.equal


def test_bundle_that_records_no_choices_is_refused(honest, verified, tmp_path):
    """Otherwise a bundle could ask for the weaker checks of release 0.1."""
    path = forgery.forged(honest(), tmp_path / "bundle", manifest=forgery.field("choices", lambda _: None))
    with pytest.raises(BundleError, match="does not record the choices of its export"):
        verified(path)


@pytest.mark.parametrize("channels", [1, 3, 8])
def test_channels_that_are_zero(channels, changed, verified):
    change = in_onnx(lambda p: surgery.reweighted(p, surgery.without_channels(channels)))
    verdict, reasons = verified(changed("fp32", change))
    assert "rebuild_differs" in reasons
    (line,) = differs(verdict, "initializer", "weight")
    assert f"in row{'s' * (channels > 1)} 0" in line


def test_half_a_percent_of_noise_is_in_every_layer(changed, verified):
    verdict, reasons = verified(changed("fp32", in_onnx(lambda p: surgery.reweighted(p, surgery.with_noise(0.005)))))
    assert "rebuild_differs" in reasons
    assert len(differs(verdict, "initializer", "by up to")) >= 3


@pytest.mark.parametrize("name", surgery.OTHER_GRAPHS)
def test_another_graph(name, changed, verified):
    change, words = surgery.OTHER_GRAPHS[name]
    verdict, reasons = verified(changed("fp32", in_onnx(change)))
    assert "rebuild_differs" in reasons
    differs(verdict, "model.onnx", *words)


def test_values_of_other_names_are_the_same_network(changed, verified):
    verdict, _ = verified(changed("fp32", in_onnx(surgery.renamed)))
    assert not [line for line in verdict.rebuild.differences if line.startswith("model.onnx")]


def test_weights_of_another_run_under_the_runs_hash(run, other, verified, tmp_path):
    export_run(other, target_named("x86-cpu"), tmp_path / "other", golden=GOLDEN)
    claim = forgery.of_run(run.checkpoint().weights_sha256)
    verdict, reasons = verified(forgery.forged(tmp_path / "other", tmp_path / "bundle", manifest=claim))
    assert "rebuild_differs" in reasons
    differs(verdict, "model.onnx", "initializer", "values differ")


def test_int8_takes_the_rounding_of_another_cpu_and_no_more(changed, verified, honest, tmp_path):
    verdict, _ = verified(changed("int8", in_onnx(surgery.rounded_elsewhere(1 + 8e-6))))
    assert verdict.rebuild.equal, verdict.rebuild.differences
    for role, change in ((1, lambda scale: scale * (1 + 2e-5)), (0, surgery.one_step)):
        shutil.rmtree(tmp_path / "bundle")
        verdict, reasons = verified(changed("int8", in_onnx(surgery.nudged(role, change))))
        assert "rebuild_differs" in reasons
        differs(verdict, "model.onnx: initializer", "differ")


def test_ranges_of_another_cpu_make_the_same_integers_and_others_do_not(run, monkeypatch, tmp_path):
    """The engine's files follow from ranges that ONNX Runtime measures; another CPU's kernels change their last digit.

    All of `weights.bin` and `model.c` would then differ by the number that they share.
    """
    real = calibrate.ranges
    with monkeypatch.context() as other_cpu:
        other_cpu.setattr(
            calibrate, "ranges", lambda *given: {name: (a, b * (1 + 8e-6)) for name, (a, b) in real(*given).items()}
        )
        export_run(run, target_named("arm-cpu-sparse-int8"), tmp_path / "bundle", golden=GOLDEN)
    opened, network = bundles.open_bundle(tmp_path / "bundle"), run.load_model()
    assert compare_with_run(opened, run, network, None).differences == ()

    program = onnx.load(str(opened.path / GRAPH))
    (text,) = (item for item in program.metadata_props if item.key == RANGES)
    wider = {name: (a, b * (1 + 2e-5)) for name, (a, b) in json.loads(text.value).items()}
    text.value = json.dumps(wider, sort_keys=True)
    onnx.save(program, str(opened.path / GRAPH))
    assert not compare_with_run(opened, run, network, None).equal


def test_files_that_use_the_artifact_are_compared(changed, verified):
    def change(path):
        forgery.importing_more(path)
        forgery.other_requirements(path)
        forgery.without_readme(path)
        forgery.shadowing_numpy(path)
        forgery.empty_folder(path)

    verdict, reasons = verified(changed("fp32", change))
    assert "rebuild_differs" in reasons
    differs(verdict, "run.py, line", "'import site'")
    differs(verdict, "requirements.txt, line 1", "numpy-evil")
    differs(verdict, "README.md is missing")
    differs(verdict, "numpy.py is in the bundle, and no export writes it")
    differs(verdict, "predict/ is in the bundle, and no export writes it")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", scripts.OTHER_SCRIPTS)
def test_another_torchscript(name, changed, verified):
    change, words = scripts.OTHER_SCRIPTS[name]
    verdict, reasons = verified(changed("csr", scripts.script(change)))
    assert "rebuild_differs" in reasons
    differs(verdict, "model.ts", *words)


def test_the_order_of_a_torchscripts_constants_is_no_difference(honest, tmp_path):
    """torch writes the constants of a module in the order of a set, which differs from process to process."""
    path, other, swapped = honest("csr") / "model.ts", tmp_path / "model.ts", 0
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(other, "w", zipfile.ZIP_STORED) as target:
        for item in source.infolist():
            text = source.read(item)
            if item.filename.endswith(".py"):
                text, count = re.subn(rb"(?m)^(  \w+ : Final\[.*\n)(  \w+ : Final\[.*\n)", rb"\2\1", text)
                swapped += count
            target.writestr(item, text)
    assert swapped
    assert csr_differences(path, other) == []
