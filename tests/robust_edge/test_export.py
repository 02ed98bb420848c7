"""What goes from a run to an exporter: golden images and what they are expected to give."""

from collections import Counter

import numpy as np
import pytest
import torch

from robust_edge import export
from robust_edge.attacks.pgd import Pgd
from robust_edge.config.export import ExportChoices, GoldenSettings
from robust_edge.data import load_dataset
from robust_edge.data.holdout import hold_out
from robust_edge.evaluation.accuracy import attack_split
from robust_edge.export import calibration_images, export_run, make_golden
from robust_edge.run.directory import open_run
from robust_edge.run.images import evaluation_images
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.attacks.threat import LINF, USUAL_EPS, Threat
from robust_edge_runtimes.core import golden as golden_module
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.golden import most_golden_images


def test_evaluation_images_are_the_test_split(sparse_run):
    expected = load_dataset(sparse_run.config.data).test
    assert torch.equal(evaluation_images(sparse_run).images, expected.images)
    assert torch.equal(evaluation_images(sparse_run, limit=7).labels, expected.labels[:7])


def test_images_that_have_changed_are_refused(sparse_run, tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    for item in sparse_run.path.iterdir():
        if item.is_file():
            (path / item.name).write_bytes(item.read_bytes())
    text = (path / "config.yaml").read_text()
    (path / "config.yaml").write_text(text.replace("limit_test: 60", "limit_test: 59"))
    with pytest.raises(InputError, match=r"not those of .*run; .*`data_dir`"):
        evaluation_images(open_run(path))


def test_golden_images_are_the_attack_and_the_checkpoint_s_logits(sparse_run):
    model, split = sparse_run.load_model(), evaluation_images(sparse_run, limit=25)
    golden = make_golden(model, split, Pgd(steps=5), Threat(0.1), seed=3)
    assert golden.clean.dtype == golden.attacked.dtype == np.float32
    assert np.array_equal(golden.clean, split.floats(slice(None)).numpy())
    assert np.array_equal(golden.labels, split.labels.numpy())
    expected = attack_split(model, split, Pgd(steps=5), Threat(0.1), seed=3)
    assert np.array_equal(golden.attacked, expected.images.numpy())
    assert np.abs(golden.attacked - golden.clean).max() <= 0.1 + 1e-6
    with torch.no_grad():
        for images, logits in ((golden.clean, golden.clean_logits), (golden.attacked, golden.attacked_logits)):
            assert np.array_equal(logits, model(torch.from_numpy(images)).numpy())


@pytest.fixture(scope="module")
def exported(sparse_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundles") / "sparse"
    settings = GoldenSettings(images=25, steps=5, seed=3)
    return export_run(sparse_run, target_named("x86-cpu"), path, golden=settings), path


def test_the_bundle_knows_its_checkpoint_and_what_to_expect(sparse_run, exported):
    bundle, checkpoint = open_bundle(exported[1]), sparse_run.checkpoint()
    manifest = bundle.manifest
    assert manifest.source.checkpoint_sha256 == checkpoint.weights_sha256
    assert manifest.source.dataset_fingerprint == checkpoint.dataset_fingerprint
    assert manifest.sparsity == checkpoint.sparsity
    assert manifest.classes == checkpoint.model.classes
    golden = make_golden(sparse_run.load_model(), evaluation_images(sparse_run, limit=25), Pgd(steps=5), Threat(0.1), 3)
    clean = golden.clean_logits.argmax(1) == golden.labels
    robust = clean & (golden.attacked_logits.argmax(1) == golden.labels)
    expected = manifest.expected
    assert (expected.images, expected.clean_accuracy, expected.robust_accuracy) == (25, clean.mean(), robust.mean())
    assert (expected.attack.eps, expected.attack.steps, expected.attack.seed) == (0.1, 5, 3)
    assert np.array_equal(bundle.golden().attacked, golden.attacked)


def test_a_benign_run_is_stored_with_the_usual_radius(benign_run, tmp_path):
    exported = export_run(benign_run, target_named("x86-cpu"), tmp_path / "b", golden=GoldenSettings(images=5, steps=1))
    assert exported.manifest.expected.attack.eps == USUAL_EPS[LINF]


def test_a_bundle_stores_no_more_images_than_it_may(sparse_run, tmp_path, monkeypatch):
    """512 images of 3x384x384 would take 1.8 GB, which `open_bundle` refuses, after all of them were attacked."""
    assert most_golden_images((3, 384, 384), 1000) == 302
    assert most_golden_images((3, 224, 224), 1000) >= GoldenSettings.images
    monkeypatch.setattr(golden_module, "MAX_GOLDEN_BYTES", 20_000)
    path = tmp_path / "bundle"
    export_run(sparse_run, target_named("x86-cpu"), path, golden=GoldenSettings(images=40, steps=1))
    images = len(open_bundle(path).golden().labels)
    assert images == most_golden_images((1, 8, 8), 10) < 40


def test_an_existing_bundle_is_kept(sparse_run, exported):
    before = (exported[1] / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="exists"):
        export_run(sparse_run, target_named("x86-cpu"), exported[1])
    assert (exported[1] / "manifest.json").read_bytes() == before


def test_int8_ranges_come_from_training_images_and_no_test_image(sparse_run, tmp_path, monkeypatch):
    requests = []
    monkeypatch.setattr(export, "export_bundle", lambda request, path, overwrite: requests.append(request))
    settings = GoldenSettings(images=25, steps=1)
    choices = ExportChoices(precision="int8", batch=5, calibration=40)
    export_run(sparse_run, target_named("x86-cpu-int8"), tmp_path / "b", golden=settings, choices=choices)
    (request,) = requests
    dataset = load_dataset(sparse_run.config.data)
    assert request.calibration.shape == (40, *dataset.shape)
    known = {image.tobytes() for image in dataset.train.floats(slice(None)).numpy()}
    assert {image.tobytes() for image in request.calibration} <= known
    tested = {image.tobytes() for image in dataset.test.floats(slice(None)).numpy()}
    assert not tested & {image.tobytes() for image in request.calibration}
    assert (request.precision, request.batch) == ("int8", 5)


def test_int8_ranges_come_from_what_a_run_held_out_and_from_every_class(sparse_run):
    train = load_dataset(sparse_run.config.data).train
    labelled = {
        image.tobytes(): int(label)
        for image, label in zip(train.floats(slice(None)).numpy(), train.labels, strict=True)
    }
    trained_on = {image.tobytes() for image in hold_out(train, 60)[0].floats(slice(None)).numpy()}
    for count in (40, 60):
        calibration, held_out = calibration_images(train, ExportChoices(calibration=count - 10, held_out=10))
        drawn = [image.tobytes() for image in (*calibration, *held_out)]
        assert len(held_out) == 10
        assert len(drawn) == count
        assert not trained_on & set(drawn)
        assert set(Counter(labelled[image] for image in drawn).values()) == {count // 10}
    assert [len(part) for part in calibration_images(train.first(12), ExportChoices())] == [12, 0]


def test_what_the_target_cannot_do_is_refused_before_anything_is_attacked(sparse_run, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "make_golden", lambda *arguments: pytest.fail("attacked"))
    skipped = ExportChoices(options={"int8_skip": "nothing"})
    with pytest.raises(InputError, match="no layer matches 'nothing'; there are"):
        export_run(sparse_run, target_named("x86-cpu-int8"), tmp_path / "b", choices=skipped)
    with pytest.raises(InputError, match="`explain_int8` is for int8; target x86-cpu"):
        export_run(sparse_run, target_named("x86-cpu"), tmp_path / "b", choices=ExportChoices(explain_int8=True))
    choices = ExportChoices(precision="int8")
    with pytest.raises(InputError, match="does not support int8: a Nano's GPU"):
        export_run(sparse_run, target_named("jetson-gpu", "4.6"), tmp_path / "b", choices=choices)
