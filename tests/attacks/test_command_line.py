"""Bundles that are not what they claim, through `robust-edge verify BUNDLE --against RUN`: exit code and reason.

Artifacts are attacked in the default modes, with all their steps, on a few images. What is found before any attack is
tested without one.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil

import pytest

for needed in ("torch", "onnx", "onnxruntime", "sklearn"):
    pytest.importorskip(needed, reason=f"false bundles are made and judged with {needed}")

from robust_edge_runtimes.core import bundle as bundles  # noqa: E402
from tests.attacks import forgery, surgery, two_faced  # noqa: E402
from tests.commands import run as run_command  # noqa: E402

pytestmark = pytest.mark.slow  # a network is trained


@pytest.fixture
def verify(robust, monkeypatch):
    """verify(bundle, *options, expect=exit code) -> what the command writes to stdout and stderr, in one line."""
    command = importlib.import_module("robust_edge.cli.verify")
    monkeypatch.setattr(command, "second_cpu", lambda: False)  # the run is exported again once for all tests, and here

    def run(bundle, *options, expect):
        words = ("robust-edge", "verify", bundle, "--against", robust.path, "--limit", 50, *options)
        done = run_command(*map(str, words), expect=expect)
        return " ".join((done.stdout + done.stderr).split())

    return run


QUICK = ("--mode", "replay")  # one that takes no steps; claims are checked before all modes
CLAIMS = {
    "eps": ({"manifest": forgery.attack(eps=1.0, step_size=0.25)}, 1, "false_claim: eps 1: the run's is 0.1"),
    "steps": (
        {"manifest": forgery.attack(steps=20, step_size=0.0125)},
        1,
        "false_claim: attack pgd, 20 steps: made again from seed",
    ),
    "attack": (
        {"manifest": forgery.attack(name="autoattack")},
        1,
        "false_claim: attack 'autoattack': an export stores images of pgd",
    ),
    "accuracy": ({"golden": forgery.robust_everywhere}, 1, "false_claim: robust accuracy 9"),
    "labels": (
        {"manifest": forgery.field("classes", lambda m: m.classes[::-1])},
        4,
        "correct predictions would get wrong class names",
    ),
    "precision": (
        {"manifest": forgery.inner("artifact", precision="int8")},
        4,
        "the precision is 'int8', target x86-cpu says 'fp32'",
    ),
    "kept weights": ({"manifest": forgery.one_weight_less}, 4, "(weights, non-zeros) of a layer is"),
    "unrecorded choices": (
        {"manifest": forgery.field("choices", lambda _: None)},
        4,
        "does not record the choices of its export",
    ),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_false_claim(name, honest, verify, tmp_path):
    change, code, reason = CLAIMS[name]
    bundle = forgery.forged(honest, tmp_path / "bundle", **change)
    text = verify(bundle, "--seed", 1, *QUICK, expect=code)
    assert reason in text, text


def test_accuracy_that_the_stored_logits_do_not_give(honest, verify, tmp_path):
    path = shutil.copytree(honest, tmp_path / "bundle")
    manifest = bundles.open_bundle(path).manifest
    bundles.seal(
        path, dataclasses.replace(manifest, expected=dataclasses.replace(manifest.expected, robust_accuracy=1))
    )
    assert "a robust one of" in verify(path, "--seed", 1, expect=4)


ARTIFACTS = {
    "benign for one attacked image alone": (
        lambda p, _: two_faced.two_faced(p(), p("benign"), two_faced.attacked_in_batches_of(1, 1)),
        ("batch_dependent",),
    ),
    "robust near stored images only": (
        lambda p, golden: two_faced.two_faced(p(), p("benign"), two_faced.far_from(golden.clean, 1.95)),
        ("not_the_checkpoint", "training images"),
    ),
    "inputs rounded by flat steps": (
        lambda p, _: two_faced.staircase(p(), 16),
        ("twin_gradient_differs", "no_black_box"),
    ),
}


@pytest.mark.parametrize("name", ARTIFACTS)
def test_false_artifact(name, false_bundle, workshop, honest, verify):
    make, reasons = ARTIFACTS[name]
    bundle = false_bundle(make(workshop.program, bundles.open_bundle(honest).golden()))
    text = verify(bundle.path, "--seed", 1, expect=1)
    assert all(reason in text for reason in reasons), text


@pytest.mark.parametrize(
    ("change", "reason"),
    [(surgery.without_channels(3), "in rows 0"), (surgery.with_noise(0.005), "values differ")],
    ids=["zeros", "noise"],
)
def test_other_weights(change, reason, false_bundle, workshop, verify):
    """Three channels are zero, or half a percent of noise is in every layer: the new export shows it."""
    bundle = false_bundle(surgery.reweighted(workshop.program(), change))
    text = verify(bundle.path, "--seed", 1, *QUICK, "--mode", "rebuild", expect=1)
    assert "rebuild_differs: " in text, text
    assert reason in text, text


def test_scaled_benign_network_with_an_int8_claim(honest, workshop, verify, tmp_path):
    scaled = forgery.program(surgery.scaled(workshop.program("benign")))
    bundle = forgery.vouched(forgery.forged(honest, tmp_path / "bundle", scaled))
    bundles.seal(bundle, forgery.int8_row(bundles.open_bundle(bundle).manifest))
    text = verify(bundle, "--seed", 1, expect=4)
    assert "the precision of the stored weights is 'int8', the artifact model.onnx itself says 'fp32'" in text


def test_weights_of_another_run_under_the_runs_hash(workshop, robust, verify, tmp_path):
    digest = robust.checkpoint().weights_sha256
    path = forgery.forged(workshop.bundle(name="benign"), tmp_path / "bundle", manifest=forgery.of_run(digest))
    text = verify(path, "--seed", 1, expect=1)
    assert all(reason in text for reason in ("rebuild_differs", "forged_answers", "not_the_checkpoint")), text


def seeds(path):
    return {mode["attack"]["seed"] for mode in json.loads(path.read_text())["modes"] if mode["mode"] != "replay"}


def test_seed_is_drawn_and_recorded(honest, verify, tmp_path):
    """Without --seed every run draws other images; with one the verdict is the same."""
    quick = ("--mode", "surrogate", "--steps", 1)  # without `rebuild`, 50 images decide nothing
    drawn = []
    for name in ("first", "second"):
        verify(honest, *quick, "-o", tmp_path / f"{name}.json", expect=5)
        drawn.append(seeds(tmp_path / f"{name}.json"))
    assert [len(found) for found in drawn] == [1, 1]
    assert drawn[0] != drawn[1]
    verdicts = []
    for name in ("third", "fourth"):
        verify(honest, *quick, "--seed", 7, "-o", tmp_path / f"{name}.json", expect=5)
        verdict = json.loads((tmp_path / f"{name}.json").read_text())
        verdict["modes"] = [{**mode, "seconds": 0} for mode in verdict["modes"]]
        verdict["machine"] = verdict["notes"] = None  # notes count the verdicts before
        verdicts.append(verdict)
    assert seeds(tmp_path / "third.json") == {7}
    assert verdicts[0] == verdicts[1]
