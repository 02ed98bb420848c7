"""Artifacts that are the checkpoint wherever an attack looks first, and another network elsewhere.

Each fails with default settings, and for its own reason.
"""

from __future__ import annotations

import pytest

for needed in ("torch", "onnx", "onnxruntime", "sklearn"):
    pytest.importorskip(needed, reason=f"false artifacts are made and judged with {needed}")

import torch  # noqa: E402

from robust_edge.config.export import GoldenSettings  # noqa: E402
from robust_edge.verification.settings import VerifySettings  # noqa: E402
from robust_edge.verification.verify import verify_bundle  # noqa: E402
from robust_edge_runtimes.core import bundle as bundles  # noqa: E402
from robust_edge_runtimes.verdict.flags import FLAGS  # noqa: E402
from robust_edge_runtimes.verdict.measurement import Budget  # noqa: E402
from tests.attacks import two_faced  # noqa: E402
from tests.attacks.forgery import forged, program  # noqa: E402
from tests.attacks.scripts import script  # noqa: E402

DEFAULT = VerifySettings(limit=200, options={"steps": 10})
NEW_FLAGS = {"batch_dependent", "randomised", "twin_gradient_differs", "differs_elsewhere", "not_the_checkpoint"}
NEW_FLAGS |= {"twin_differs", "zero_gradient"}


def names_of(verdict):
    return {reason.partition(":")[0] for reason in verdict.reasons}


def details(verdict, name):
    return " ".join(flag.detail for flag in verdict.flags if flag.name == name)


def test_benign_for_one_attacked_image_alone(false_bundle, workshop, robust):
    """Logits of clean images and of batches are right; only single candidates show the difference."""
    condition = two_faced.attacked_in_batches_of(1, 1)
    bundle = false_bundle(two_faced.two_faced(workshop.program(), workshop.program("benign"), condition))
    verdict = verify_bundle(bundle, robust, Budget(2, 2), DEFAULT)
    assert "batch_dependent" in names_of(verdict)
    assert "final candidates of mode whitebox" in details(verdict, "batch_dependent")
    assert "have other logits alone" in details(verdict, "batch_dependent")
    assert "no_twin" not in names_of(verdict)
    lenient = verify_bundle(bundle, robust, Budget(2, 2, FLAGS), DEFAULT)
    assert not lenient.passed
    assert lenient.worst.robust_drop.points > 0  # an image counts as robust only if it is right alone


def test_robust_only_in_batches_of_the_attacks_size(false_bundle, workshop, robust):
    """Logits of single images are right, too; only the other batch size shows the difference."""
    condition = two_faced.attacked_in_batches_of(2, 40)
    bundle = false_bundle(two_faced.two_faced(workshop.program(), workshop.program("benign"), condition))
    verdict = verify_bundle(bundle, robust, Budget(2, 2), DEFAULT)
    assert "batch_dependent" in names_of(verdict)
    assert "in batches of" in details(verdict, "batch_dependent")
    assert "robust_drop" in names_of(verify_bundle(bundle, robust, Budget(2, 2, FLAGS), DEFAULT))


def test_robust_only_near_stored_images(workshop, robust, tmp_path):
    honest = workshop.bundle(golden=GoldenSettings(images=10_000, steps=5))  # all test images
    condition = two_faced.far_from(bundles.open_bundle(honest).golden().clean, 1.95)
    false = two_faced.two_faced(workshop.program(), workshop.program("benign"), condition)
    bundle = bundles.open_bundle(forged(honest, tmp_path / "bundle", program(false)))
    verdict = verify_bundle(bundle, robust, Budget(2, 2), DEFAULT)
    assert verdict.worst.robust_drop.points == 0  # nothing near test images speaks against it
    assert {"not_the_checkpoint", "differs_elsewhere"} <= names_of(verdict)
    for images in ("training images", "mixtures", "noise", "points that mode difference reached"):
        assert images in details(verdict, "not_the_checkpoint")


@pytest.fixture
def scripted(workshop, tmp_path):
    """scripted(Kind) -> the honest csr bundle with a TorchScript of two networks."""

    def write(kind):
        other = torch.jit.load(str(workshop.bundle("x86-cpu-csr", "benign") / "model.ts")).eval()
        change = script(lambda network: kind(network, other))
        return bundles.open_bundle(forged(workshop.bundle("x86-cpu-csr"), tmp_path / "bundle", change))

    return write


SCRIPTS = {
    "looks at the batch": (two_faced.WhenAlone, {"batch_dependent"}),
    "looks at requires_grad": (two_faced.WhenRecorded, {"twin_gradient_differs", "not_the_checkpoint"}),
    "has no gradient": (two_faced.FlatWhenRecorded, {"twin_gradient_differs", "zero_gradient", "no_black_box"}),
}


@pytest.mark.filterwarnings("ignore")  # TorchScript is deprecated since 2.10, and CSR called a beta
@pytest.mark.parametrize("name", SCRIPTS)
def test_torchscript_that_branches(name, scripted, robust):
    kind, expected = SCRIPTS[name]
    verdict = verify_bundle(scripted(kind), robust, Budget(2, 2), VerifySettings(limit=60, options={"steps": 4}))
    assert expected <= names_of(verdict), verdict.reasons


def test_inputs_rounded_by_many_flat_steps(false_bundle, workshop, robust):
    """Clean digits are multiples of 1/16, which the steps leave as they are."""
    bundle = false_bundle(two_faced.staircase(workshop.program(), 16))
    verdict = verify_bundle(bundle, robust, Budget(2, 2), DEFAULT)
    assert {"twin_gradient_differs", "no_black_box"} <= names_of(verdict)
    assert "no_twin" not in names_of(verdict)
    allowed = Budget(100, 100, FLAGS)
    assert names_of(verify_bundle(bundle, robust, allowed, DEFAULT)) == {"no_black_box"}
    settings = VerifySettings(modes=("whitebox", "blackbox"), limit=50, options={"steps": 2})
    assert names_of(verify_bundle(bundle, robust, allowed, settings)) == set()


@pytest.mark.parametrize(
    ("target", "seed"),
    [
        *(("x86-cpu", seed) for seed in (11, 12, 13)),
        *(("x86-cpu-int8", seed) for seed in (11, 12, 13)),
        ("x86-cpu-csr", 11),  # six times as slow, since torch differentiates its sparse products
    ],
)
def test_honest_artifacts_raise_none_of_these_flags(target, seed, robust, workshop):
    bundle = bundles.open_bundle(workshop.bundle(target))
    verdict = verify_bundle(bundle, robust, Budget(2, 2), VerifySettings(limit=60, seed=seed, options={"steps": 5}))
    assert not NEW_FLAGS & {flag.name for flag in verdict.flags}, verdict.flags
