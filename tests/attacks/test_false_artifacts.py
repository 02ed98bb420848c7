"""Artifacts that are not what they claim, in bundles whose hashes agree: each must fail, and for its own reason.

A small robust network on digits in three channels is trained once; every false artifact is surgery on its ONNX file.
"""

from __future__ import annotations

import dataclasses
import shutil

import pytest

for needed in ("torch", "onnx", "onnxruntime", "sklearn"):
    pytest.importorskip(needed, reason=f"false artifacts are made and judged with {needed}")

from robust_edge.verification.modes import table  # noqa: E402
from robust_edge.verification.settings import VerifySettings  # noqa: E402
from robust_edge.verification.verify import verify_bundle  # noqa: E402
from robust_edge_runtimes.core import bundle as bundles  # noqa: E402
from robust_edge_runtimes.core.errors import BundleError, InputError  # noqa: E402
from robust_edge_runtimes.verdict.flags import FLAGS  # noqa: E402
from robust_edge_runtimes.verdict.judge import FAIL, UNDECIDED, with_outcome  # noqa: E402
from robust_edge_runtimes.verdict.measurement import Budget  # noqa: E402
from tests.attacks import forgery  # noqa: E402
from tests.attacks.surgery import OTHER_LOGITS, reweighted, saturated, with_noise, with_table  # noqa: E402

MODES = tuple(mode.name for mode in table.MODES)
DEFAULT = VerifySettings(limit=200, options={"steps": 10})
TWO_POINTS = Budget(2.1, 2.1)  # what 200 images without a loss can show


FALSE = {
    "another network, as right on clean images": (lambda p: p("benign"), {"robust_drop", "not_the_checkpoint"}),
    "weights under 20% of noise": (lambda p: reweighted(p(), with_noise(0.2)), {"not_the_checkpoint"}),
    **{
        name: (lambda p, change=change: change(p()), set(reasons.split()))
        for name, (change, reasons) in OTHER_LOGITS.items()
    },
}


def names_of(verdict):
    return {reason.partition(":")[0] for reason in verdict.reasons}


def test_the_honest_artifact_passes(honest, robust):
    settings = dataclasses.replace(
        DEFAULT, modes=("replay", "surrogate", "whitebox", "blackbox"), options={"steps": 10, "queries": 100}
    )
    verdict = verify_bundle(bundles.open_bundle(honest), robust, TWO_POINTS, settings)
    assert verdict.passed, (verdict.reasons, verdict.undecided)
    assert verdict.flags == ()
    assert 0.3 < verdict.worst.artifact_robust < verdict.worst.artifact_clean
    assert verdict.worst.robust_drop.points == 0


@pytest.mark.parametrize("vouched", [False, True], ids=["", "vouched for"])
@pytest.mark.parametrize("name", FALSE)
def test_a_false_artifact_fails_for_its_own_reason(name, vouched, false_bundle, workshop, robust):
    make, expected = FALSE[name]
    settings = dataclasses.replace(DEFAULT, modes=("surrogate",)) if vouched else DEFAULT
    verdict = verify_bundle(false_bundle(make(workshop.program), vouched=vouched), robust, Budget(), settings)
    assert verdict.outcome == FAIL
    if vouched:  # the stored logits are false, so only the checkpoint's logits on other images can show it
        expected = expected & {"batch_dependent", "randomised"} or {"not_the_checkpoint"}
    assert expected <= names_of(verdict), verdict.reasons


def test_a_table_of_the_golden_images_is_found_out(false_bundle, workshop, honest, robust):
    """On every image of the bundle its logits are those of the robust checkpoint."""
    golden = bundles.open_bundle(honest).golden()
    bundle = false_bundle(with_table(workshop.program("benign"), golden))
    replayed = verify_bundle(bundle, None, TWO_POINTS, VerifySettings())
    assert replayed.passed
    assert replayed.parity.max_logit_error < 1e-5
    verdict = verify_bundle(bundle, robust, Budget(), DEFAULT)
    assert {"robust_drop", "not_the_checkpoint"} <= names_of(verdict)
    alone = verify_bundle(
        bundle, None, Budget(), dataclasses.replace(DEFAULT, modes=("blackbox",), options={"queries": 200})
    )
    assert "robust_drop" in names_of(alone)


@pytest.fixture
def lenient(false_bundle, workshop, tmp_path):
    """The benign network, vouched for by a bundle that asks next to nothing: attack images that are the clean ones."""
    bundle = false_bundle(workshop.program("benign"), vouched=True)
    claims = {"manifest": forgery.attack(eps=1e-9), "golden": forgery.unmoved_and_vouched}
    return bundles.open_bundle(forgery.forged(bundle.path, tmp_path / "lenient", **claims))


def test_the_runs_eps_is_attacked_whatever_the_bundle_names(lenient, robust):
    assert verify_bundle(lenient, None, TWO_POINTS, VerifySettings()).passed  # nothing in the bundle speaks against it
    verdict = verify_bundle(lenient, robust, Budget(), DEFAULT)
    assert [mode.attack.eps for mode in verdict.modes] == [1e-9, 0.1, 0.1, 0.1, 0.1]
    assert {"robust_drop", "forged_answers", "not_the_checkpoint"} <= names_of(verdict)
    replayed = verify_bundle(lenient, robust, Budget(), dataclasses.replace(DEFAULT, modes=("replay",)))
    assert names_of(replayed) == {"forged_answers", "false_claim", "not_the_checkpoint"}


def test_other_class_names_are_refused(honest, robust, tmp_path):
    path = shutil.copytree(honest, tmp_path / "bundle")
    manifest = bundles.open_bundle(honest).manifest
    bundles.seal(path, dataclasses.replace(manifest, classes=manifest.classes[::-1]))
    with pytest.raises(BundleError, match="wrong class names"):
        verify_bundle(bundles.open_bundle(path), robust, Budget(), DEFAULT)


def test_two_percent_of_noise_on_the_weights_is_another_network(false_bundle, workshop, robust):
    """It fails since its logits are not the checkpoint's, and by no drop.

    With every flag allowed the drop decides, and 200 images are too few: hardly any is lost, but equal files vouch for
    the others only where `rebuild` finds them.
    """
    bundle = false_bundle(reweighted(workshop.program(), with_noise(0.02)))
    verdict = verify_bundle(bundle, robust, Budget(), DEFAULT)
    assert verdict.outcome == FAIL
    assert names_of(verdict) == {"not_the_checkpoint", "not_the_artifact", "rebuild_differs", "false_claim"}
    allowed = with_outcome(verdict, Budget(allowed_flags=FLAGS))
    assert allowed.outcome == UNDECIDED, allowed.reasons
    drop = allowed.worst.robust_drop
    assert drop.low <= drop.budget < drop.high


def test_noise_that_costs_robustness_fails_by_its_drop(false_bundle, workshop, robust):
    bundle = false_bundle(reweighted(workshop.program(), with_noise(1.0)))
    verdict = verify_bundle(bundle, robust, Budget(allowed_flags=FLAGS), DEFAULT)
    assert "robust_drop" in names_of(verdict)


def test_masked_gradients_do_not_save_the_benign_network(false_bundle, workshop, robust):
    """With every flag allowed, the temperature sweep alone brings the gradients back."""
    bundle = false_bundle(saturated(workshop.program("benign")))
    settings = dataclasses.replace(DEFAULT, modes=("whitebox",))
    verdict = verify_bundle(bundle, robust, Budget(allowed_flags=FLAGS), settings)
    (mode,) = verdict.modes
    assert mode.twin.temperature > 100
    assert "saturated_gradient" in {flag.name for flag in mode.flags}
    assert "robust_drop" in names_of(verdict)


@pytest.mark.parametrize("limit", [1, 49])
def test_a_tiny_set_of_images_is_undecided(honest, robust, limit):
    verdict = verify_bundle(bundles.open_bundle(honest), robust, Budget(), dataclasses.replace(DEFAULT, limit=limit))
    assert (verdict.outcome, verdict.reasons) == ("undecided", ())
    assert {line.split(":")[0] for line in verdict.undecided} == {"too_few_images"}
    assert len(verdict.undecided) == 1


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_set_of_images_is_refused(honest, robust, mode):
    settings = dataclasses.replace(DEFAULT, modes=(mode,), limit=0)
    with pytest.raises(InputError, match="checks nothing"):
        verify_bundle(bundles.open_bundle(honest), robust, Budget(), settings)


@pytest.mark.parametrize("target", ["x86-cpu-int8", "x86-cpu-csr"])
def test_other_faithful_artifacts_pass(target, robust, workshop):
    settings = dataclasses.replace(DEFAULT, options={"steps": 5}, limit=100)
    verdict = verify_bundle(bundles.open_bundle(workshop.bundle(target)), robust, Budget(7, 7), settings)
    assert verdict.passed, (verdict.reasons, verdict.undecided)
    assert verdict.flags == ()
    assert [mode.mode for mode in verdict.modes] == ["replay", "blackbox", "surrogate", "whitebox", "difference"]
    assert verdict.worst.robust_drop.points <= 1
    assert "own" in verdict.modes[3].twin.made_from


def test_another_network_in_8_bits_is_not_taken_for_rounding(robust, workshop, tmp_path):
    """int8 may exceed the tolerance on some images; a network of another seed does on nearly all."""
    bundle = forgery.of_another_network(workshop, tmp_path / "bundle", "x86-cpu-int8", "other")
    settings = dataclasses.replace(DEFAULT, modes=("surrogate",), options={"steps": 2}, limit=100)
    verdict = verify_bundle(bundles.open_bundle(bundle), robust, Budget(), settings)
    assert not verdict.passed
    assert "not_the_checkpoint" in {flag.name for mode in verdict.modes for flag in mode.flags}
