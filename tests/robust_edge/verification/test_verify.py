"""The verdict on the host: which modes run, and that a bundle is only judged against its own run."""

import functools
import shutil

import numpy as np
import pytest

from robust_edge.config.export import GoldenSettings
from robust_edge.data import load_dataset
from robust_edge.export import export_run
from robust_edge.run.directory import open_run
from robust_edge.verification import subject as subjects
from robust_edge.verification.modes import table
from robust_edge.verification.settings import VerifySettings
from robust_edge.verification.subject import shuffled_images
from robust_edge.verification.twins import lazy
from robust_edge.verification.verify import verify_bundle
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core import bundle as bundles
from robust_edge_runtimes.core.bundle import open_bundle, private_bundle
from robust_edge_runtimes.core.errors import BundleError, InputError
from robust_edge_runtimes.formats.onnx.format import OnnxFormat
from robust_edge_runtimes.load import load
from robust_edge_runtimes.verdict.measurement import Budget

pytest.importorskip("onnxruntime", reason="verification runs the artifact on onnxruntime")

MODES = tuple(mode.name for mode in table.MODES)
ATTACKS = tuple(name for name in MODES if name != "rebuild")


@pytest.fixture(scope="module")
def exported(sparse_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundles") / "sparse"
    export_run(sparse_run, target_named("x86-cpu"), path, golden=GoldenSettings(images=50, steps=5))
    return open_bundle(path)


def test_with_its_run_every_mode_agrees_and_passes(exported, sparse_run):
    settings = VerifySettings(modes=MODES, options={"steps": 5, "queries": 20})
    verdict = verify_bundle(exported, sparse_run, Budget(), settings)
    assert [mode.mode for mode in verdict.modes] == list(ATTACKS)
    assert verdict.rebuild.equal
    assert [mode.images for mode in verdict.modes] == [50, 60, 60, 60, 60]
    assert verdict.passed, verdict.reasons
    for result in (*verdict.modes, verdict.worst):
        assert result.artifact_clean == result.reference_clean
        assert result.artifact_robust == result.reference_robust
    assert verdict.worst.modes == ATTACKS
    assert verdict.worst.images == 60
    assert verdict.worst.artifact_robust <= min(mode.artifact_robust for mode in verdict.modes[1:])


def test_bundle_and_run_are_opened_once(exported, sparse_run, monkeypatch):
    opened = []

    def counting(holder, name):
        original = getattr(holder, name)

        def counted(*arguments, **options):
            opened.append(name)
            return original(*arguments, **options)

        monkeypatch.setattr(holder, name, counted)

    counting(bundles, "open_bundle")
    counting(bundles, "read_golden")
    counting(type(sparse_run), "load_model")
    counting(subjects, "dataset_of")
    counting(lazy, "twin_of")
    verify_bundle(
        exported, sparse_run, Budget(), VerifySettings(modes=MODES, limit=50, options={"steps": 1, "queries": 2})
    )
    assert sorted(opened) == ["dataset_of", "load_model", "read_golden", "twin_of"]


def test_by_default_all_that_needs_no_long_search(exported, sparse_run):
    verdict = verify_bundle(exported, sparse_run, Budget(), VerifySettings(options={"steps": 1}))
    assert [mode.mode for mode in verdict.modes] == ["replay", "blackbox", "surrogate", "whitebox", "difference"]
    assert verdict.modes[1].attack.steps == 50
    twin = verdict.modes[3].twin
    assert twin.made_from == "the artifact's own ONNX graph"
    assert twin.max_logit_error < 1e-5
    assert twin.argmax_agreement == 1


def test_a_smaller_ball_of_the_bundle_is_not_the_one_attacked(sparse_run, tmp_path):
    """The export may store weaker images; what the checkpoint was trained for is what it is asked for."""
    settings = GoldenSettings(images=50, steps=2, eps=0.01)
    export_run(sparse_run, target_named("x86-cpu"), tmp_path / "b", golden=settings)
    verdict = verify_bundle(open_bundle(tmp_path / "b"), sparse_run, Budget(), VerifySettings(options={"steps": 1}))
    assert [mode.attack.eps for mode in verdict.modes] == [0.01, *[sparse_run.config.attack.eps] * 4]


def test_nor_is_a_larger_one_but_the_users_own_is(sparse_run, tmp_path):
    settings = GoldenSettings(images=50, steps=2, eps=0.3)
    export_run(sparse_run, target_named("x86-cpu"), tmp_path / "b", golden=settings)
    bundle = open_bundle(tmp_path / "b")
    verdict = verify_bundle(bundle, sparse_run, Budget(), VerifySettings(options={"steps": 1}))
    assert [mode.attack.eps for mode in verdict.modes] == [0.3, *[sparse_run.config.attack.eps] * 4]
    named = [flag.name for flag in verdict.flags if "eps 0.3" in flag.detail]
    assert named == ["false_claim", "nothing_to_lose"]  # at that radius the stored attack breaks the checkpoint
    asked = verify_bundle(bundle, sparse_run, Budget(), VerifySettings(eps=0.3, options={"steps": 1}))
    assert [mode.attack.eps for mode in asked.modes] == [0.3] * 5
    assert "false_claim" not in {flag.name for flag in asked.flags}


def test_without_a_run_only_replay_runs(exported):
    verdict = verify_bundle(exported, None, Budget(), VerifySettings(limit=10))
    assert [(mode.mode, mode.images) for mode in verdict.modes] == [("replay", 10)]


def test_without_a_run_stored_answers_stand_for_the_checkpoint(exported):
    settings = VerifySettings(modes=("whitebox", "blackbox"), options={"steps": 5, "queries": 20})
    verdict = verify_bundle(exported, None, Budget(), settings)
    golden = exported.golden()
    held = (golden.clean_logits.argmax(1) == golden.labels) & (golden.attacked_logits.argmax(1) == golden.labels)
    for mode in verdict.modes:
        assert not mode.paired
        assert mode.reference_robust == held.mean()
    assert verdict.worst is None


def test_clean_accuracy_is_that_of_the_artifact_on_the_images_drawn(exported, sparse_run):
    verdict = verify_bundle(exported, sparse_run, Budget(), VerifySettings(modes=("surrogate",), options={"steps": 1}))
    split = load_dataset(sparse_run.config.data).test
    drawn = shuffled_images(split, exported.golden(), 1).draw(0, len(split))
    with load(exported) as model:
        right = model.infer(drawn.clean).argmax(1) == drawn.labels
    assert verdict.modes[0].artifact_clean == np.mean(right)


def test_modes_are_run_once_in_the_order_given(exported, sparse_run):
    settings = VerifySettings(modes=("surrogate", "replay", "surrogate"), options={"steps": 1})
    verdict = verify_bundle(exported, sparse_run, Budget(7, 7), settings)
    assert [mode.mode for mode in verdict.modes] == ["surrogate", "replay"]


def test_another_run_is_refused_and_both_are_named(exported, benign_run):
    with pytest.raises(InputError, match=r"was exported from run 'sparse' .*not from .*benign") as caught:
        verify_bundle(exported, benign_run, Budget(), VerifySettings())
    assert "the right one as `run`" in str(caught.value)


def test_surrogate_needs_a_run(exported):
    with pytest.raises(InputError, match="give the bundle's run as `run`"):
        verify_bundle(exported, None, Budget(), VerifySettings(modes=("surrogate",)))


def test_an_unknown_mode(exported):
    with pytest.raises(InputError, match="unknown mode 'replai'; did you mean 'replay'"):
        verify_bundle(exported, None, Budget(), VerifySettings(modes=("replai",)))


def test_without_a_run_no_source_is_compiled_beside_files_that_are_not_listed(exported, tmp_path, monkeypatch):
    path = shutil.copytree(exported.path, tmp_path / "bundle")
    (path / "more.h").write_text("x")
    monkeypatch.setattr(OnnxFormat, "code_files", ("model.c",))
    with pytest.raises(BundleError, match=r"holds 'more\.h'"):
        verify_bundle(open_bundle(path), None, Budget(), VerifySettings(limit=10))


QUICK = VerifySettings(modes=("replay",), options={"steps": 5})


def test_a_bundle_that_is_replaced_while_it_is_verified(exported, sparse_run, tmp_path):
    """The verdict is on the bytes that were hashed, whatever lies in the folder since then."""
    path = shutil.copytree(exported.path, tmp_path / "bundle")
    remove = functools.partial(shutil.rmtree, path, ignore_errors=True)
    with private_bundle(path) as opened:
        verdict = verify_bundle(opened, sparse_run, Budget(), QUICK, progress=lambda _: remove())
    assert not path.exists()
    assert not verdict.flags


def test_a_run_that_is_written_while_a_bundle_is_verified(exported, sparse_run, tmp_path):
    run = open_run(shutil.copytree(sparse_run.path, tmp_path / "run"))
    checkpoint = run.path / "checkpoint.json"

    def write(_):
        checkpoint.write_text(checkpoint.read_text().replace('"seed": 0', '"seed": 1'))

    with pytest.raises(InputError, match="was written while a bundle was verified"):
        verify_bundle(exported, run, Budget(), QUICK, progress=write)
