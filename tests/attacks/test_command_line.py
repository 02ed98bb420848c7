"""Bundles that are not what they claim, through `robust-edge verify BUNDLE --against RUN`: exit code and reason.

Artifacts are attacked in the default modes, with all their steps, on a few images. What is found before any attack is
tested without one.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import shutil

import numpy as np
import pytest

for needed in ("torch", "onnx", "onnxruntime", "sklearn"):
    pytest.importorskip(needed, reason=f"false bundles are made and judged with {needed}")

from robust_edge_runtimes.core import bundle as bundles  # noqa: E402
from robust_edge_runtimes.core.golden import GOLDEN, expected_of, write_golden  # noqa: E402
from tests.attacks import surgery, two_faced  # noqa: E402
from tests.attacks.conftest import counted  # noqa: E402
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


@pytest.fixture
def forged(honest, tmp_path):
    """forged(change) -> a copy of the honest bundle; `change(manifest, golden)` gives its manifest and stored images.

    The accuracies in the manifest are those of the stored logits, as opening a bundle demands.
    """

    def write(change):
        path = shutil.copytree(honest, tmp_path / "bundle")
        opened = bundles.open_bundle(path)
        manifest, golden = change(opened.manifest, opened.golden())
        write_golden(path / GOLDEN, golden)
        bundles.seal(path, dataclasses.replace(manifest, expected=expected_of(golden, manifest.expected.attack)))
        return path

    return write


def attack(**fields):
    """Another attack in the manifest."""

    def change(manifest, golden):
        spec = dataclasses.replace(manifest.expected.attack, **fields)
        return dataclasses.replace(manifest, expected=dataclasses.replace(manifest.expected, attack=spec)), golden

    return change


def field(name, value):
    """Another value in the manifest: `value(manifest)`."""
    return lambda manifest, golden: (dataclasses.replace(manifest, **{name: value(manifest)}), golden)


def robust_everywhere(manifest, golden):
    """Stored logits that are right on every attacked image, as the higher robust accuracy in the manifest demands."""
    return manifest, dataclasses.replace(golden, attacked_logits=10 * np.eye(10, dtype=np.float32)[golden.labels])


def one_weight_less(manifest):
    sparsity = manifest.sparsity
    first, *rest = sparsity.layers
    layers = (dataclasses.replace(first, nonzero=first.nonzero - 1), *rest)
    return dataclasses.replace(sparsity, nonzero=sparsity.nonzero - 1, layers=layers)


QUICK = ("--mode", "replay")  # one that takes no steps; claims are checked before all modes
CLAIMS = {
    "eps": (attack(eps=1.0, step_size=0.25), 1, "false_claim: eps 1: the run's is 0.1"),
    "steps": (attack(steps=20, step_size=0.0125), 1, "false_claim: attack pgd, 20 steps: made again from seed"),
    "attack": (attack(name="autoattack"), 1, "false_claim: attack 'autoattack': an export stores images of pgd"),
    "accuracy": (robust_everywhere, 1, "false_claim: robust accuracy 9"),
    "labels": (field("classes", lambda m: m.classes[::-1]), 4, "correct predictions would get wrong class names"),
    "precision": (
        field("artifact", lambda m: dataclasses.replace(m.artifact, precision="int8")),
        4,
        "the precision is 'int8', target x86-cpu says 'fp32'",
    ),
    "kept weights": (field("sparsity", one_weight_less), 4, "(weights, non-zeros) of a layer is"),
    "unrecorded choices": (field("choices", lambda _: None), 4, "does not record the choices of its export"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_false_claim(name, forged, verify):
    change, code, reason = CLAIMS[name]
    text = verify(forged(change), "--seed", 1, *QUICK, expect=code)
    assert reason in text, text


def test_accuracy_that_the_stored_logits_do_not_give(honest, verify, tmp_path):
    path = shutil.copytree(honest, tmp_path / "bundle")
    manifest = bundles.open_bundle(path).manifest
    bundles.seal(
        path, dataclasses.replace(manifest, expected=dataclasses.replace(manifest.expected, robust_accuracy=1))
    )
    assert "a robust one of" in verify(path, "--seed", 1, expect=4)


def zeroed(weight, layer):
    return np.where(np.arange(len(weight)).reshape(-1, 1, 1, 1) < 3, 0, weight) if layer == 1 else weight


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
def test_false_artifact(name, false_bundle, programs, honest, verify):
    make, reasons = ARTIFACTS[name]
    bundle = false_bundle(make(programs, bundles.open_bundle(honest).golden()))
    text = verify(bundle.path, "--seed", 1, expect=1)
    assert all(reason in text for reason in reasons), text


@pytest.mark.parametrize(
    ("change", "reason"), [(zeroed, "in rows 0"), (surgery.with_noise(0.005), "values differ")], ids=["zeros", "noise"]
)
def test_other_weights(change, reason, false_bundle, programs, verify):
    """Three channels are zero, or half a percent of noise is in every layer: the new export shows it."""
    bundle = false_bundle(surgery.reweighted(programs(), change))
    text = verify(bundle.path, "--seed", 1, *QUICK, "--mode", "rebuild", expect=1)
    assert "rebuild_differs: " in text, text
    assert reason in text, text


def test_scaled_benign_network_with_an_int8_claim(false_bundle, programs, verify):
    bundle = false_bundle(surgery.after(programs("benign"), ("Mul", np.float32(1000))), vouched=True)
    artifact = dataclasses.replace(bundle.manifest.artifact, precision="int8")
    bundles.seal(bundle.path, dataclasses.replace(bundle.manifest, target="x86-cpu-int8", artifact=artifact))
    text = verify(bundle.path, "--seed", 1, expect=4)
    assert "the precision of the stored weights is 'int8', the artifact model.onnx itself says 'fp32'" in text


def test_weights_of_another_run_under_the_runs_hash(programs, robust, folder, verify, tmp_path):
    programs("benign")  # exports it
    path = shutil.copytree(folder / "benign_bundle", tmp_path / "bundle")
    manifest = bundles.open_bundle(path).manifest
    source = dataclasses.replace(manifest.source, checkpoint_sha256=robust.checkpoint().weights_sha256)
    bundles.seal(path, counted(path, dataclasses.replace(manifest, source=source)))
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
