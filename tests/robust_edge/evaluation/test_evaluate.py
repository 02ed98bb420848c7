"""Records of evaluations, bound to the checkpoint they are true of."""

import json

import pytest

from robust_edge.attacks.pgd import Pgd
from robust_edge.data import load_dataset
from robust_edge.evaluation.accuracy import evaluate_pgd
from robust_edge.evaluation.evaluate import EvaluateSettings, evaluate_run, evaluation_table, stored_evaluation
from robust_edge.run import open_run
from robust_edge_runtimes.errors import InputError


@pytest.fixture
def run(sparse_run, tmp_path):
    """A copy that evaluations may be written into."""
    path = tmp_path / "run"
    path.mkdir()
    for item in sparse_run.path.iterdir():
        if item.is_file():
            (path / item.name).write_bytes(item.read_bytes())
    return open_run(path)


def test_the_record_is_the_attack_on_the_run_s_test_images(run):
    record = evaluate_run(run, EvaluateSettings(eps=0.05, steps=4, limit=30, seed=3))
    split = load_dataset(run.config.data).test.first(30)
    assert record.pgd == evaluate_pgd(run.load_model(), split, Pgd(eps=0.05, steps=4), seed=3)
    assert record.checkpoint_sha256 == run.checkpoint().weights_sha256
    assert record.curve is None
    assert (run.path / "evaluations" / "pgd.json").is_file()


@pytest.mark.parametrize("attack", ["pgd", "curve"])
def test_what_was_written_is_what_is_read(run, attack):
    record = evaluate_run(run, EvaluateSettings(attack=attack, steps=2, limit=20))
    found = stored_evaluation(run, attack)
    assert found.run == record.run
    assert found.pgd == record.pgd
    assert (found.curve is None) == (record.curve is None)
    if record.curve is not None:
        assert found.curve.points == record.curve.points
        assert found.curve.panel.predicted == record.curve.panel.predicted
        assert json.dumps(found.curve.panel.pixels) == json.dumps(record.curve.panel.pixels)
    assert evaluation_table(found) == evaluation_table(record)


def test_a_record_of_an_older_checkpoint_does_not_count(run):
    evaluate_run(run, EvaluateSettings(steps=1, limit=10))
    path = run.path / "evaluations" / "pgd.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "checkpoint_sha256": "0" * 64}))
    assert stored_evaluation(run, "pgd") is None
    path.write_text(json.dumps(record))
    assert stored_evaluation(run, "pgd") is not None


def test_nothing_stored_is_nothing(run):
    assert stored_evaluation(run, "curve") is None


def test_a_benign_run_is_attacked_with_the_usual_radius(benign_run, tmp_path):
    record = evaluate_run(benign_run, EvaluateSettings(steps=1, limit=10), tmp_path / "record.json")
    assert record.pgd.attack.eps == 8 / 255
    assert (tmp_path / "record.json").is_file()


def test_the_radius_zero_is_a_radius(run):
    assert evaluate_run(run, EvaluateSettings(eps=0.0, limit=10)).pgd.attack.eps == 0.0


def test_the_run_s_own_radius_and_fifty_steps_are_the_default(run):
    attack = evaluate_run(run, EvaluateSettings(limit=5)).pgd.attack
    assert (attack.eps, attack.steps) == (0.1, 50)


def test_other_images_than_the_run_s_are_refused(run):
    text = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(text.replace("limit_train: 200", "limit_train: 199"))
    with pytest.raises(InputError, match="images found now are not those"):
        evaluate_run(open_run(run.path), EvaluateSettings())
    assert not (run.path / "evaluations").exists()


def test_the_table_names_attack_and_interval(run):
    text = evaluation_table(evaluate_run(run, EvaluateSettings(eps=8 / 255, steps=3, limit=20)))
    assert "PGD-3 eps=0.03137" in text
    assert "95% interval" in text
    assert "%" in text.splitlines()[-1]
