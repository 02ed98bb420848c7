"""Records of evaluations, bound to the checkpoint they are true of."""

import json

import pytest

from robust_edge.evaluation.evaluate import evaluate_run
from robust_edge.evaluation.record import stored_evaluation
from robust_edge.evaluation.settings import EvaluateSettings
from robust_edge.evaluation.tables import evaluation_table
from robust_edge.run.directory import open_run
from robust_edge_runtimes.core.errors import InputError


@pytest.fixture
def run(sparse_run, tmp_path):
    """A copy that evaluations may be written into."""
    path = tmp_path / "run"
    path.mkdir()
    for item in sparse_run.path.iterdir():
        if item.is_file():
            (path / item.name).write_bytes(item.read_bytes())
    return open_run(path)


@pytest.mark.parametrize("attack", ["pgd", "curve"])
def test_what_was_written_is_what_is_read(run, attack):
    record = evaluate_run(run, EvaluateSettings(attack=attack, steps=2, limit=20))
    found = stored_evaluation(run, attack)
    assert found.run == record.run
    assert found.result == record.result
    assert (found.curve is None) == (record.curve is None)
    if record.curve is not None:
        assert found.curve.points == record.curve.points
        assert found.curve.panel.predicted == record.curve.panel.predicted
        assert json.dumps(found.curve.panel.pixels) == json.dumps(record.curve.panel.pixels)
    assert evaluation_table(found) == evaluation_table(record)


def test_a_record_that_has_the_accuracies_of_pgd_twice_is_read(run):
    record = evaluate_run(run, EvaluateSettings(steps=1, limit=10))
    path = run.path / "evaluations" / "pgd.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pgd": {"clean": {}, "robust": {}}}))
    assert stored_evaluation(run, "pgd").result == record.result


def test_a_record_of_an_older_checkpoint_does_not_count(run):
    evaluate_run(run, EvaluateSettings(steps=1, limit=10))
    path = run.path / "evaluations" / "pgd.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "checkpoint_sha256": "0" * 64}))
    assert stored_evaluation(run, "pgd") is None
    path.write_text(json.dumps(record))
    assert stored_evaluation(run, "pgd") is not None


def test_a_record_of_another_radius_or_of_other_images_is_not_replaced_in_silence(run, tmp_path):
    said = []

    def attack(eps, limit, out=None):
        said.clear()
        evaluate_run(run, EvaluateSettings(eps=eps, steps=1, limit=limit), out, warn=said.append)

    path = run.path / "evaluations" / "pgd.json"
    attack(0.05, 10)
    assert said == []
    attack(0.05, 10)
    assert said == []
    attack(0.05, 8, tmp_path / "elsewhere.json")
    assert said == []
    attack(0.05, 8)
    assert said == [f"{path} (eps 0.05, 10 images) will be replaced at the end; another output file keeps both"]
    attack(0.1, 8)
    assert "(eps 0.05, 8 images)" in said[0]
    path.write_text("{")
    attack(0.1, 8)
    assert said == []


def test_nothing_stored_is_nothing(run):
    assert stored_evaluation(run, "curve") is None


def test_a_benign_run_is_attacked_with_the_usual_radius(benign_run, tmp_path):
    record = evaluate_run(benign_run, EvaluateSettings(steps=1, limit=10), tmp_path / "record.json")
    assert record.result.threat.eps == 8 / 255
    assert (tmp_path / "record.json").is_file()


def test_the_radius_zero_is_no_attack(run):
    with pytest.raises(InputError, match="above 0"):
        evaluate_run(run, EvaluateSettings(eps=0.0, limit=10))


def test_the_run_s_own_radius_and_fifty_steps_are_the_default(run):
    result = evaluate_run(run, EvaluateSettings(limit=5)).result
    assert (result.threat.eps, result.stages[0].settings["steps"]) == (0.1, 50)


def test_other_images_than_the_run_s_are_refused(run):
    text = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(text.replace("limit_train: 200", "limit_train: 199"))
    with pytest.raises(InputError, match="images are not those of"):
        evaluate_run(open_run(run.path), EvaluateSettings())
    assert not (run.path / "evaluations").exists()


def test_the_table_names_attack_and_interval(run):
    record = evaluate_run(run, EvaluateSettings(eps=8 / 255, steps=3, limit=20))
    text = evaluation_table(record)
    assert sum(row.robust for row in record.result.per_class) == record.result.robust.correct
    assert sum(row.clean for row in record.result.per_class) == record.result.clean.correct
    assert f"balanced over {len(record.result.per_class)} classes: clean " in text
    assert "eps=0.03137" in text
    assert "pgd 3 steps" in text
    assert "95% interval" in text
    assert "%" in next(line for line in text.splitlines() if line.startswith("after pgd"))
