"""The verdict on the host: which modes run, and that a bundle is only judged against its own run."""

import numpy as np
import pytest

from robust_edge.data import load_dataset
from robust_edge.deployment import GoldenSettings, export_run
from robust_edge.verification import VerifySettings, verify_bundle
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.bundle import open_bundle
from robust_edge_runtimes.errors import InputError
from robust_edge_runtimes.load import load
from robust_edge_runtimes.verify import Budget

pytest.importorskip("onnxruntime", reason="verification runs the artifact on onnxruntime")


@pytest.fixture(scope="module")
def exported(sparse_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundles") / "sparse"
    export_run(sparse_run, target_named("x86-cpu"), path, golden=GoldenSettings(images=50, steps=5))
    return open_bundle(path)


def test_with_its_run_replay_and_surrogate_agree_and_pass(exported, sparse_run):
    verdict = verify_bundle(exported, sparse_run, Budget(), VerifySettings(steps=5))
    assert [mode.mode for mode in verdict.modes] == ["replay", "surrogate"]
    assert [mode.images for mode in verdict.modes] == [50, 60]
    assert verdict.passed, verdict.reasons
    for mode in verdict.modes:
        assert mode.artifact_clean == mode.reference_clean
        assert mode.artifact_robust == mode.reference_robust


def test_without_a_run_only_replay_runs(exported):
    verdict = verify_bundle(exported, None, Budget(), VerifySettings(limit=10))
    assert [(mode.mode, mode.images) for mode in verdict.modes] == [("replay", 10)]


def test_clean_accuracy_is_that_of_the_artifact_on_the_test_images(exported, sparse_run):
    verdict = verify_bundle(exported, sparse_run, Budget(), VerifySettings(modes=("surrogate",), steps=1))
    split = load_dataset(sparse_run.config.data).test
    with load(exported) as model:
        right = model.infer(split.floats(slice(None)).numpy()).argmax(1) == split.labels.numpy()
    assert verdict.modes[0].artifact_clean == np.mean(right)


def test_a_mode_named_twice_runs_once(exported):
    settings = VerifySettings(modes=("replay", "replay"), limit=10)
    assert len(verify_bundle(exported, None, Budget(), settings).modes) == 1


def test_another_run_is_refused_and_both_are_named(exported, benign_run):
    with pytest.raises(InputError, match=r"was exported from run 'sparse' .*not from .*benign") as caught:
        verify_bundle(exported, benign_run, Budget(), VerifySettings())
    assert "--against" in str(caught.value)


def test_surrogate_needs_a_run(exported):
    with pytest.raises(InputError, match="--against RUN"):
        verify_bundle(exported, None, Budget(), VerifySettings(modes=("surrogate",)))


def test_an_unknown_mode():
    with pytest.raises(InputError, match="unknown mode 'replai'; did you mean 'replay'"):
        VerifySettings(modes=("replai",))
