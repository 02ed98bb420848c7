"""`evaluate` from settings to JSON, table and exit code."""

import dataclasses
import errno
import json
import shutil

import pytest
import torch
from torch import nn

from robust_edge.attacks.attack import Batch
from robust_edge.attacks.autoattack import AutoAttack
from robust_edge.attacks.pgd import Pgd
from robust_edge.evaluation import job as module
from robust_edge.evaluation.audit import Audit
from robust_edge.evaluation.averaged import Averaged
from robust_edge.evaluation.campaign import predictions
from robust_edge.evaluation.evaluate import evaluate_run
from robust_edge.evaluation.memory import plan_memory
from robust_edge.evaluation.record import Evaluation, stored_evaluation, stored_evaluations
from robust_edge.evaluation.settings import EvaluateSettings
from robust_edge.evaluation.subset import choose
from robust_edge.evaluation.tables import audit_lines, evaluation_table
from robust_edge.run.directory import open_run
from robust_edge.run.images import evaluation_images
from robust_edge_runtimes.attacks.threat import Threat
from robust_edge_runtimes.core.decode import decode, read_json
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import write_json

QUICK = {"eps": 0.1, "steps": 10, "limit": 30}


@pytest.fixture
def run(judged_run, tmp_path):
    return open_run(shutil.copytree(judged_run.path, tmp_path / "judged"))


@pytest.fixture
def other(sibling_run, tmp_path):
    return open_run(shutil.copytree(sibling_run.path, tmp_path / "sibling"))


def test_the_record_holds_every_image_and_reads_back(run):
    record = evaluate_run(run, EvaluateSettings(**QUICK))
    again = decode(Evaluation, read_json(run.path / "evaluations/pgd.json"))
    assert again == record
    result = record.result
    assert len(result.positions) == len(result.outcomes) == 30
    assert result.outcomes.count("robust") == result.robust.correct < result.clean.correct
    assert (result.threat, result.seed) == (Threat(0.1), 0)
    assert (result.attack, result.title) == ("pgd", "PGD-10×3")
    assert result.stages[0].settings == {"steps": 10, "restarts": 3, "random_start": True, "last": False}
    model, split = run.load_model(), evaluation_images(run)
    rows = torch.tensor(result.positions)
    images, labels = split.floats(rows), split.labels[rows]
    found = Pgd(steps=10).perturb(model, Batch(images, labels, result.positions, 0), Threat(0.1))
    with torch.no_grad():
        held = (model(found).argmax(1) == labels) & (model(images).argmax(1) == labels)
    assert [outcome == "robust" for outcome in result.outcomes] == held.tolist()


@pytest.mark.parametrize("name", ["judged_run", "sibling_run"])
def test_pgd_as_it_comes_is_within_two_points_of_apgd(name, request, tmp_path):
    pytest.importorskip("pyautoattack", reason="the extra `attack` is not installed")
    attacked = request.getfixturevalue(name)
    model, (split, _) = attacked.load_model(), choose(evaluation_images(attacked), 150)
    pgd = evaluate_run(attacked, EvaluateSettings(eps=0.1, limit=150), tmp_path / "pgd.json")
    apgd, images = AutoAttack().members(10)["apgd-ce"], split.floats(slice(None))
    found = apgd.perturb(model, Batch(images, split.labels, range(150), 0), Threat(0.1))
    held = predictions(model, found) == split.labels
    assert 10 < 100 * float(held.float().mean()) < 90, "the radius shows nothing if all hold or all fall"
    assert 100 * pgd.result.robust.value <= 100 * float(held.float().mean()) + 2


@pytest.mark.parametrize(
    ("attack", "extra"), [("fgsm", {}), ("cw", {"steps": 10}), ("pgd", {"steps": 10, "norm": "l2"})]
)
def test_every_attack_of_ours_weakens(run, attack, extra):
    record = evaluate_run(
        run, EvaluateSettings(attack=attack, eps=0.6 if extra.get("norm") else 0.1, limit=30, **extra)
    )
    assert 0 < record.result.robust.correct < record.result.clean.correct
    assert record.audit.clean
    suffix = "-l2" if extra.get("norm") else ""
    assert (run.path / f"evaluations/{attack}{suffix}.json").is_file()


def test_the_curve_is_algorithm_2(run):
    record = evaluate_run(run, EvaluateSettings(attack="curve", steps=4, limit=40))
    points = record.curve.points
    assert points[0].eps == 0
    assert [point.held.count("1") for point in points] == [point.accuracy.correct for point in points]
    assert all(point.accuracy.value >= 0.1 for point in points[:-1])
    assert points[-1].accuracy.value < 0.1, "it ends at the first ε below chance"
    assert record.audit.flags == ("few_steps",)
    assert record.curve.positions == choose(evaluation_images(run), 40)[1]
    pixels = torch.tensor(record.curve.panel.pixels)
    for step, point in enumerate(points):
        assert (pixels[step] - pixels[0]).abs().max() <= point.eps + 1e-6


def test_a_subset_is_random_fixed_nested_and_recorded(run):
    split = evaluation_images(run)
    few, some = choose(split, 10)[1], choose(split, 40)[1]
    assert set(few) < set(some)
    assert list(few) == sorted(few) != list(range(10))
    record = evaluate_run(run, EvaluateSettings(**{**QUICK, "limit": 10, "seed": 5}))
    assert record.result.positions == few
    assert dataclasses.astuple(record.subset)[:2] == (10, len(split))
    assert choose(split, None)[1] == choose(split, 10**6)[1] == tuple(range(len(split)))
    with pytest.raises(InputError, match="no images"):
        choose(split.first(0), None)


def test_a_killed_evaluation_goes_on_through_its_state_file(run, monkeypatch):
    settings = EvaluateSettings(**QUICK, batch=8)
    whole = evaluate_run(run, settings, run.path / "whole.json")
    inner, calls = Pgd.perturb, []

    def dying(attack, *batch, **rest):
        if attack.steps == QUICK["steps"]:  # others are of the audit
            calls.append(1)
            if len(calls) == 3:
                raise KeyboardInterrupt
        return inner(attack, *batch, **rest)

    monkeypatch.setattr(Pgd, "perturb", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(run, settings)
    assert [path.suffix for path in run.evaluations.iterdir()] == [".state"]
    assert stored_evaluations(run) == {}
    renamed = open_run(run.path.rename(run.path.with_name("renamed")))
    record = evaluate_run(renamed, settings)
    expected = dataclasses.replace(whole.result, attacked="renamed", judged="renamed")
    assert (record.resumed, record.result) == (2, expected)
    run = open_run(renamed.path.rename(run.path))
    assert len(calls) == 3 + 2
    calls[:] = []
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(run, settings)
    calls[:] = [1] * 9
    assert evaluate_run(run, dataclasses.replace(settings, fresh=True)).resumed == 0
    assert not list(run.evaluations.glob("*.state"))


def test_a_record_that_cannot_be_written_costs_no_attack(run, monkeypatch):
    settings = EvaluateSettings(**QUICK, batch=8)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        evaluate_run(run, settings)
    monkeypatch.setattr(module, "write_json", write_json)
    assert evaluate_run(run, settings).resumed == 4
    assert [path.name for path in run.evaluations.iterdir()] == ["pgd.json"]


@pytest.mark.parametrize(
    "change",
    [
        lambda model: nn.Sequential(model, nn.Softmax(1)),
        lambda model: type("Huge", (nn.Module,), {"forward": lambda self, x: 1e4 * model(x)})(),
        lambda model: type("Rounded", (nn.Module,), {"forward": lambda self, x: model(x).round()})(),
        lambda model: type("Noisy", (nn.Module,), {"forward": lambda s, x: model(x + 0.1 * torch.randn_like(x))})(),
        lambda model: model.train(),
    ],
)
def test_no_broken_network_gets_a_clean_table(run, monkeypatch, change):
    broken = change(run.load_model().eval())
    monkeypatch.setattr(type(run), "load_model", lambda self: broken)
    record = evaluate_run(run, EvaluateSettings(**QUICK))
    assert record.audit.flags
    table = evaluation_table(record)
    assert all(f"FLAG {flag}" in table for flag in record.audit.flags)
    assert "none of" not in table


def test_an_older_record_is_not_called_clean():
    assert "NOT AUDITED" in audit_lines(None)[0]


# --- averages ----------------------------------------------------------------------------------------------------


def test_an_average_has_the_mean_of_the_probabilities():
    torch.manual_seed(0)
    members = [nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(2)]
    images = torch.rand(6, 1, 2, 2)
    expected = sum(member(images).softmax(1) for member in members) / 2
    logits = Averaged(members)(images)
    assert torch.allclose(logits.softmax(1), expected, atol=1e-6)
    huge = [nn.Sequential(member, type("Big", (nn.Module,), {"forward": lambda s, z: 1e3 * z})()) for member in members]
    assert Averaged(huge)(images).isfinite().all()


def test_a_combination_shows_oblivious_and_adaptive(run, other):
    record = evaluate_run(run, EvaluateSettings(**{**QUICK, "limit": 60, "eps": 0.12}), other=other)
    pair = record.combination
    assert [item.attacked for item in pair.oblivious] == ["judged", "sibling"]
    assert {item.judged for item in pair.oblivious} == {pair.adaptive.judged} == {"judged + sibling"}
    assert [item.attacked for item in pair.members] == [item.judged for item in pair.members]
    assert record.result == pair.adaptive
    every = [
        all(outcome == "robust" for outcome in row)
        for row in zip(*(item.outcomes for item in (*pair.oblivious, pair.adaptive)), strict=True)
    ]
    assert pair.every.correct == sum(every)
    assert pair.adaptive.robust.correct < max(item.robust.correct for item in pair.oblivious)
    assert (run.path / "evaluations/pgd-with-sibling.json").is_file()
    assert decode(Evaluation, read_json(run.path / "evaluations/pgd-with-sibling.json")) == record
    assert [audit.clean for audit in pair.audits] == [True, True]
    assert {"few_steps", "nothing_attacked"} <= {check.name for check in pair.audits[1].checks}
    text = evaluation_table(record)
    assert "oblivious: attack on judged" in text
    assert "sibling: validity: none of" in text
    assert "adaptive" in text


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        (lambda model: nn.Sequential(model, nn.Softmax(1)).eval(), "softmax_output"),
        (lambda model: model.train(), "training_mode"),
    ],
)
def test_a_broken_member_does_not_hide_behind_the_average(run, other, monkeypatch, change, flag):
    models = {run.path: run.load_model(), other.path: change(other.load_model())}
    monkeypatch.setattr(type(other), "load_model", lambda self: models[self.path])
    record = evaluate_run(run, EvaluateSettings(**QUICK), other=other)
    sound, broken = record.combination.audits
    assert flag in broken.flags
    assert flag not in sound.flags
    table = evaluation_table(record)
    assert f"sibling: FLAG {flag}" in table
    assert "judged: validity: none of" in table


def test_a_record_of_an_average_ends_with_the_weights_of_either_network(run, other):
    evaluate_run(run, EvaluateSettings(**{**QUICK, "steps": 1, "limit": 5}), other=other)
    name = "pgd-with-sibling"
    assert stored_evaluation(run, name) is not None
    path = other.path / "checkpoint.json"
    trained, again = path.read_text(), other.checkpoint().weights_sha256
    path.write_text(trained.replace(again, "0" * 64))
    assert stored_evaluations(run) == {name: None}
    path.write_text(trained)
    assert stored_evaluation(run, name) is not None
    path.unlink()
    assert stored_evaluation(run, name) is None, "nobody can say whether it is still true"


def test_a_state_of_a_member_that_was_trained_anew_is_not_taken_up(run, other, monkeypatch):
    settings, inner, turns = EvaluateSettings(**QUICK, batch=8), module.run_campaign, []

    def dying(*arguments, **keywords):
        if len(turns) == 3:  # the second member's turn has begun
            raise KeyboardInterrupt
        turns.append(keywords["state"])
        return inner(*arguments, **keywords)

    monkeypatch.setattr(module, "audit_model", lambda *_, **__: Audit(0, ()))
    monkeypatch.setattr(module, "run_campaign", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(run, settings, other=other)
    before, turns[:] = list(turns), []
    models = {item.path: item.load_model() for item in (run, other)}
    monkeypatch.setattr(type(other), "load_model", lambda self: models[self.path])
    real = type(other).checkpoint
    monkeypatch.setattr(
        type(other),
        "checkpoint",
        lambda self: (
            dataclasses.replace(real(self), weights_sha256="0" * 64) if self.path == other.path else real(self)
        ),
    )
    with pytest.raises(KeyboardInterrupt):
        evaluate_run(run, settings, other=other)
    assert len(before) == len(turns) == 3
    assert not set(before) & set(turns)


# --- memory ------------------------------------------------------------------------------------------------------


def test_a_small_budget_makes_small_batches_and_the_same_figures(run):
    image = evaluation_images(run).floats(slice(0, 1))
    model = run.load_model()
    plans = [plan_memory(model, image, 10, budget_mib=mib, most=250) for mib in (1, 2, 64)]
    sizes = [plan.batch_size for plan in plans]
    assert 1 <= sizes[0] < sizes[1] < sizes[2] <= 250
    assert all(plan.batch_size * plan.image_bytes <= mib << 20 for plan, mib in zip(plans, (1, 2, 64), strict=True))
    small = evaluate_run(run, EvaluateSettings(**QUICK, memory_mib=2))
    large = evaluate_run(run, EvaluateSettings(**QUICK, memory_mib=256))
    assert small.result.outcomes == large.result.outcomes
    assert large.memory.within_bound
    huge = torch.rand(1, 1, 256, 256)
    with pytest.raises(InputError, match="`memory_mib` allows"):
        plan_memory(model, huge, 10, budget_mib=1, most=250)


# --- the command line --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--eps", "0"], "above 0"),
        (["--eps", "-0.1"], "above 0"),
        (["--eps", "nan"], "above 0"),
        (["--eps", "2"], "at most 1"),
        (["--attack", "curve", "--eps", "0.1"], "curve"),
        (["--attack", "curve", "--norm", "l2"], "linf only"),
        (["--attack", "cw", "--norm", "l2"], "linf only"),
        (["--attack", "autoattack", "--steps", "5"], "has no setting steps"),
        (["--limit", "0"], "limit"),
        (["--attack", "apgd"], "apgd"),
        (["-o", "."], "is a directory"),
    ],
)
def test_wrong_input_is_one_line(run, refused, words, names):
    assert names in refused("evaluate", run.path, "--limit", "5", *words)
    assert not list(run.evaluations.glob("*"))


def test_other_classes_or_images_do_not_go_together(run, sparse_run, refused):
    assert "test images" in refused("evaluate", run.path, "--with", sparse_run.path)
    assert "curve" in refused("evaluate", run.path, "--with", run.path, "--attack", "curve")


@pytest.mark.parametrize(
    ("package", "words"), [("pyautoattack", ["--attack", "autoattack"]), ("captum", ["--saliency"])]
)
def test_a_missing_extra_is_named(run, refused, monkeypatch, package, words):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    monkeypatch.setitem(__import__("sys").modules, f"{package}.attr", None)
    extra = {"pyautoattack": "attack", "captum": "interpret"}[package]
    assert f"robust-edge[{extra}]" in refused("evaluate", run.path, "--limit", "5", "-q", *words, code=3)


def test_the_command_prints_a_table_or_json(run, cli):
    words = ["evaluate", run.path, "--eps", "25/255", "--steps", "10", "--limit", "20", "-q"]
    text = cli(*words)
    assert text.exit_code == 0
    assert "after pgd" in text.stdout
    assert "peak memory at most" in text.stdout
    record = json.loads(cli(*words, "--json").stdout)
    assert record["result"]["threat"]["eps"] == pytest.approx(25 / 255)
    assert len(record["result"]["outcomes"]) == 20
