"""Bundles whose claims are not those of their run: each fails for its own reason with default settings."""

from __future__ import annotations

import dataclasses
import platform
import shutil

import numpy as np
import pytest

for needed in ("torch", "onnx", "onnxruntime", "sklearn"):
    pytest.importorskip(needed, reason=f"false bundles are made and judged with {needed}")

import onnx  # noqa: E402

from robust_edge.config.settings import resolve  # noqa: E402
from robust_edge.evaluation.oracle import TorchOracle  # noqa: E402
from robust_edge.export import GoldenSettings, export_run  # noqa: E402
from robust_edge.run.directory import open_run  # noqa: E402
from robust_edge.training.compress import compress  # noqa: E402
from robust_edge.verification.claims import check_claims  # noqa: E402
from robust_edge.verification.settings import VerifySettings  # noqa: E402
from robust_edge.verification.twins.table import twin_of  # noqa: E402
from robust_edge.verification.verify import verify_bundle  # noqa: E402
from robust_edge_exporters.formats.native.contents import VALUES  # noqa: E402
from robust_edge_exporters.target import target_named  # noqa: E402
from robust_edge_runtimes.core import bundle as bundles  # noqa: E402
from robust_edge_runtimes.core.errors import BundleError  # noqa: E402
from robust_edge_runtimes.formats.native.engine import find_compiler  # noqa: E402
from robust_edge_runtimes.load import load  # noqa: E402
from robust_edge_runtimes.verdict.measurement import Budget  # noqa: E402
from tests.attacks import forgery  # noqa: E402
from tests.attacks.surgery import after  # noqa: E402

SETTINGS = {
    "threads": 1, "device": "cpu", "attack.eps": 0.1, "attack.steps": 3, "training.epochs": 4,
    "training.batch_size": 50, "training.lr": 0.1, "pruning.keep": 0.5, "pruning.scope": "layer",
}  # fmt: skip
STORED = GoldenSettings(images=100, steps=10)
QUICK = VerifySettings(modes=("replay",), options={"steps": 10})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    def train(name, **changes):
        path = tmp_path_factory.mktemp("runs") / name
        compress(resolve(preset="quick", flags={**SETTINGS, **changes}), path)
        return open_run(path)

    return train


@pytest.fixture(scope="module")
def run(trained):
    return trained("robust")


@pytest.fixture(scope="module")
def benign_bundle(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("benign") / "bundle"
    export_run(trained("benign", **{"attack.eps": 0.0}), target_named("x86-cpu"), path, golden=STORED)
    return path


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """exported(target) -> the run's own bundle, exported once; do not change it."""
    folder = tmp_path_factory.mktemp("honest")

    def export(target):
        if not (folder / target).exists():
            export_run(run, target_named(target), folder / target, golden=STORED)
        return folder / target

    return export


@pytest.fixture(scope="module")
def honest(exported):
    return exported("x86-cpu")


@pytest.fixture
def forged(honest, tmp_path):
    """forged(*files, manifest=, golden=) -> the honest bundle, changed and sealed again."""
    return lambda *files, **claims: bundles.open_bundle(forgery.forged(honest, tmp_path / "bundle", *files, **claims))


def flags_of(bundle, run, **settings):
    verdict = verify_bundle(bundle, run, Budget(), dataclasses.replace(QUICK, **settings))
    return verdict, {flag.name: flag.detail for flag in verdict.flags}


@pytest.mark.parametrize(
    "target", ["x86-cpu", "arm-cpu", "x86-cpu-int8", "arm-cpu-int8", "x86-cpu-csr", "x86-cpu-sparse"]
)
def test_an_honest_bundle_claims_nothing_false(target, exported, run):
    verdict, flags = flags_of(bundles.open_bundle(exported(target)), run)
    assert flags == {}
    assert ("8-bit" in verdict.runtime.provider) == (target == "arm-cpu-int8")


@pytest.mark.skipif(find_compiler() is None, reason="there is no C compiler")
def test_an_honest_bundle_of_integers_has_a_twin_of_the_same_integers(trained, tmp_path):
    run = trained("blocks", **{"pruning.scheme": "block", "pruning.scope": "global", "training.epochs": 2})
    target = "arm-cpu-sparse-int8" if platform.machine() == "aarch64" else "x86-cpu-sparse-int8"
    bundle = bundles.open_bundle(export_run(run, target_named(target), tmp_path / "bundle", golden=STORED).path)
    noise = np.random.default_rng(0).random((50, *bundle.manifest.input.shape[1:]), np.float32)
    images = np.concatenate([bundle.golden().clean, bundle.golden().attacked, noise])
    with load(bundle) as runtime:
        np.testing.assert_array_equal(TorchOracle(twin_of(bundle).network).logits(images), runtime.infer_all(images))
    verdict, flags = flags_of(
        bundle, run, modes=("replay", "surrogate", "whitebox", "difference", "rebuild"), limit=60, options={"steps": 3}
    )
    assert flags == {}
    (twin,) = [mode.twin for mode in verdict.modes if mode.mode == "whitebox"]
    assert (twin.made_from, twin.max_logit_error, twin.argmax_agreement) == ("the artifact's own integers", 0, 1)


@pytest.mark.parametrize(("eps", "says"), [(1.0, "eps 1"), (0.01, "eps 0.01")])
def test_another_radius(eps, says, forged, run):
    bundle = forged(manifest=forgery.attack(eps=eps), golden=forgery.unmoved if eps < 0.1 else None)
    verdict, _ = flags_of(bundle, run, modes=("replay", "surrogate"))
    assert any(flag.name == "false_claim" and flag.detail.startswith(says) for flag in verdict.flags)
    assert verdict.modes[1].attack.eps == 0.1
    assert not verdict.passed


def test_images_that_were_misclassified_need_not_move(forged, run):
    """An export attacks only images that the checkpoint is right on; that it is right on none is refuted elsewhere."""

    def all_wrong(golden):
        logits = 10 * np.eye(10, dtype=np.float32)[(golden.labels + 1) % 10]
        return dataclasses.replace(forgery.unmoved(golden), clean_logits=logits, attacked_logits=logits)

    verdict, flags = flags_of(forged(golden=all_wrong), run)
    assert "forged_answers" in flags
    assert not any(flag.detail.startswith("eps") for flag in verdict.flags)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"manifest": forgery.attack(name="autoattack")}, "attack 'autoattack'"),
        ({"manifest": forgery.attack(step_size=0.5)}, "step size 0.5"),
        ({"golden": forgery.unmoved}, "move by 0 at most"),
        ({"golden": forgery.noisy}, "made again"),
        ({"golden": forgery.foreign}, "1 of 100 are not the run's first 100 test images"),
        ({"golden": forgery.unmoved, "manifest": forgery.attack(steps=0, step_size=0.0)}, "attack of 0 steps"),
        ({"golden": forgery.easy}, "are not the run's first"),
        ({"golden": forgery.lenient}, "tolerance 0.001"),
        ({"golden": forgery.lenient_to_itself}, "tolerance 0.001 of the artifact's own logits"),
        ({"golden": forgery.without_own}, "without the artifact's own logits"),
    ],
    ids=[
        "attack",
        "step size",
        "no attack",
        "noise",
        "image",
        "no steps",
        "easy images",
        "tolerance",
        "tolerance of its own logits",
        "no logits of its own",
    ],
)
def test_evidence_that_is_weaker_than_it_says(change, says, forged, run):
    bundle = forged(**change)
    found = verify_bundle(bundle, run, Budget(), QUICK)
    assert any(flag.name == "false_claim" and says in flag.detail for flag in found.flags), found.flags
    assert not found.passed


@pytest.mark.parametrize("name", forgery.CONTRADICTIONS)
def test_contradictions_are_errors(name, forged, run):
    change, says = forgery.CONTRADICTIONS[name]
    bundle = forged(manifest=change)
    with pytest.raises(BundleError, match=says):
        verify_bundle(bundle, run, Budget(), QUICK)


@pytest.mark.parametrize(
    ("files", "manifest", "says"),
    [((forgery.swapped_labels,), None, r"labels\.txt"), ((), forgery.one_weight_less, "non-zeros")],
    ids=["labels", "non-zeros"],
)
def test_labels_swapped_and_fewer_weights(files, manifest, says, forged, run):
    bundle = forged(*files, manifest=manifest)
    with pytest.raises(BundleError, match=says):
        verify_bundle(bundle, run, Budget(), QUICK)


def in_a_circle(graph):
    weight = next(node for node in graph.node if node.op_type == "Conv").input
    for one, other in (("a", "b"), ("b", "a")):
        graph.node.append(onnx.helper.make_node("Identity", [other], [one]))
    weight[1] = "a"


def weights_with(**fields):
    def edit(graph):
        item = max(graph.initializer, key=lambda item: len(item.raw_data))
        for name, value in fields.items():
            item.ClearField(name)
            getattr(item, name).extend(value) if isinstance(value, list) else setattr(item, name, value)

    return edit


def without_input(graph):
    weight = next(node for node in graph.node if node.op_type == "Conv").input
    graph.node.append(onnx.helper.make_node("Identity", [], ["nothing"]))
    weight[1] = "nothing"


@pytest.mark.parametrize(
    "edit",
    [
        in_a_circle,
        without_input,
        weights_with(dims=[33, 1, 3, 3]),
        weights_with(dims=[-1, -5]),
        weights_with(data_type=onnx.TensorProto.STRING),
        weights_with(data_type=99),
        weights_with(data_type=0),
    ],
    ids=["circle", "no input", "shape", "negative shape", "text", "unknown type", "no type"],
)
def test_graphs_that_no_reader_expects(edit, honest, run, tmp_path):
    path = shutil.copytree(honest, tmp_path / "bundle")
    program = onnx.load(path / "model.onnx")
    edit(program.graph)
    onnx.save(program, path / "model.onnx")
    bundles.seal(path, bundles.open_bundle(honest).manifest)
    with pytest.raises(BundleError):
        check_claims(bundles.open_bundle(path), run)


@pytest.mark.skipif(find_compiler() is None, reason="native bundles are compiled and run before they are written")
def test_weights_of_the_engine_that_are_fewer_than_claimed(exported, run, tmp_path):
    """One weight of the file becomes zero; the manifest still claims it."""
    path = shutil.copytree(exported("x86-cpu-sparse"), tmp_path / "bundle")
    manifest = bundles.open_bundle(path).manifest
    check_claims(bundles.open_bundle(path), run)
    first = int(VALUES.findall((path / "model.c").read_text())[1])
    data = bytearray((path / "weights.bin").read_bytes())
    assert any(data[first : first + 4])
    data[first : first + 4] = bytes(4)
    (path / "weights.bin").write_bytes(data)
    bundles.seal(path, manifest)
    with pytest.raises(BundleError, match=r"non-zeros\) of a layer is .* the artifact model\.c itself says"):
        check_claims(bundles.open_bundle(path), run)


def test_figures_of_the_export_are_measured_again(forged, run):
    found = verify_bundle(forged(manifest=forgery.inner("parity", tolerance=0.5)), run, Budget(), QUICK)
    assert any(flag.name == "false_claim" and "tolerance 0.5" in flag.detail for flag in found.flags), found.flags


def test_parity_of_8_bits_is_measured_again(exported, run, tmp_path):
    claim = forgery.inner("parity", max_logit_error=0.0)
    path = forgery.forged(exported("x86-cpu-int8"), tmp_path / "b", manifest=claim)
    _, flags = flags_of(bundles.open_bundle(path), run)
    assert "largest logit error 0" in flags["false_claim"]


@pytest.mark.parametrize(("steps", "says"), [(20, "20 steps: made"), (100, "100 steps: made"), (10**6, "of 1000000")])
def test_more_steps_than_the_stored_attack_took(steps, says, forged, run):
    """Ten were taken; `verify` repeats all that are claimed, also where its own attacks take fewer."""
    _, flags = flags_of(forged(manifest=forgery.attack(steps=steps, step_size=2.5 * 0.1 / steps)), run)
    assert set(flags) == {"false_claim"}
    assert says in flags["false_claim"]


def test_ranges_from_fewer_images_than_an_export_reads(exported, run, tmp_path):
    """The bundle says how many its ranges come from, and is exported again with as many."""
    claim = forgery.inner("choices", calibration=3)
    path = forgery.forged(exported("x86-cpu-int8"), tmp_path / "b", manifest=claim)
    _, flags = flags_of(bundles.open_bundle(path), run)
    assert "ranges of 8 bits from 3 images: an export reads 256" in flags["false_claim"]


def test_logits_of_the_artifact_that_are_not_its_own(forged, run):
    """One percent more than it gave: the checkpoint's logits and all accuracies stay as they are."""
    _, flags = flags_of(forged(golden=forgery.moved_own), run)
    assert set(flags) == {"not_the_artifact"}
    assert "on 50% of the stored images" in flags["not_the_artifact"]


@pytest.mark.parametrize("scale", [1.0, 1000.0], ids=["", "scaled logits"])
def test_a_benign_network_with_an_int8_claim(scale, forged, benign_bundle, run):
    """Whatever tolerance it asks for: the file holds fp32."""
    program = after(onnx.load(str(benign_bundle / "model.onnx")), ("Mul", np.float32(scale)))
    tolerant = {"golden": lambda golden: dataclasses.replace(golden, tolerance=0.3)}
    bundle = forged(forgery.program(program), manifest=forgery.int8_row, **tolerant)
    with pytest.raises(BundleError, match="precision of the stored weights"):
        verify_bundle(bundle, run, Budget(), QUICK)
