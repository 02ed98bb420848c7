"""The trial on two cores: what its configs cost, and which rows of an earlier result stay. Nothing is trained."""

import argparse
import dataclasses
import json
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch

from robust_edge.config.conflicts import refuse_conflicts
from robust_edge.config.settings import differences, resolve
from robust_edge.run.directory import open_run

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SETTINGS = {"eps": 8 / 255, "images": 1000, "share": 1.0}
STRONG_0_1 = """
training:
  epochs: 100
  batch_size: 128
  lr: 0.1
  lr_schedule: cosine
  momentum: 0.9
  weight_decay: 5.0e-4
  adversarial_weight: 0.9
  label_smoothing: 0.1
attack: {eps: 0.03137254901960784, eps_schedule: linear, steps: 2, steps_schedule: constant}
pruning: {keep: 0.1, keep_schedule: constant}
admm: {rho: 0.01, rho_growth: 1.3, rho_max: 0.1, interval: 20, masked_fraction: 0.4}
averaging: {decay: 0.999, reestimate: 2000}
awp: {gamma: 0.005, warmup: 10}
selection: {held_out: 1000, steps: 10}
data: {augment: [flip, crop]}
"""
"""Preset `strong` as release 0.1 had it, on top of the defaults."""


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import cifar_trial_slim

    yield cifar_trial_slim
    for name in ("cifar_trial_slim", "trial_grid"):
        sys.modules.pop(name, None)


@pytest.fixture
def choice():
    """The command line of the ablations."""
    return argparse.Namespace(data_dir=Path("data"), ablations=True, threads=1, precision="fp32", share=1.0)


def test_strong_0_1_is_the_preset_of_that_release(tmp_path):
    (tmp_path / "old.yaml").write_text(STRONG_0_1)
    old = resolve(file=tmp_path / "old.yaml")
    assert differences(resolve(preset="strong", file=BENCHMARKS / "strong-0.1.yaml"), old) == []


@pytest.mark.parametrize(
    ("flags", "passes"),
    [
        ({"attack.steps": 1, "training.adversarial_weight": 1.0}, 2 + 3),
        ({"attack.steps": 2, "training.adversarial_weight": 1.0}, 4 + 3),
        ({"attack.steps": 2, "training.adversarial_weight": 0.9}, 4 + 6),
        ({"attack.steps": 2, "training.adversarial_weight": 0.9, "training.clean_interval": 4}, 4 + 3.75),
        ({"attack.steps": 1, "training.loss": "nuclear"}, 2 + 1 + 6),
        (
            {"attack.steps": 1, "training.adversarial_weight": 1.0, "awp.gamma": 0.01, "awp.windows": [0.1, 0.6]},
            5 + 1.5,
        ),
        ({"attack.steps": 2, "awp.gamma": 0.01}, 4 + 6 + 0.9 * 6),
        ({"attack.steps": 1, "training.adversarial_weight": 1.0, "selection.held_out": 1000}, 5 + 21 / 49),
        (
            {"attack.steps": 1, "training.adversarial_weight": 1.0, "selection.held_out": 1000, "selection.every": 2},
            5 + 21 / 98,
        ),
    ],
    ids=str,
)
def test_passes_are_counted_as_the_docstring_says(script, flags, passes):
    assert script.passes(resolve(flags=flags)) == pytest.approx(passes)


def test_all_variants_cost_the_same_and_only_their_part_differs(script, choice):
    configs = script.grid(choice)
    assert next(iter(configs)) == "all-parts-seed0"
    assert len(configs) == script.SEEDS * len(script.ABLATIONS)
    base = configs["all-parts-seed0"]
    for name, config in configs.items():
        refuse_conflicts(config)
        cost = config.training.epochs * script.passes(config)
        assert abs(cost - script.ABLATION) <= script.passes(config) / 2 or config.training.epochs == 2
        variant, _, seed = name.rpartition("-seed")
        assert config.seed == int(seed)
        changed = {line.split(":")[0] for line in differences(base, config)} - {"seed", "training.epochs", "awp.warmup"}
        assert variant.startswith("release") or changed <= script.ABLATIONS[variant].keys(), variant
        assert changed or variant == "all-parts"
    assert (base.training.epochs, configs["release-seed0"].training.epochs) == (5, 2)
    assert configs["release-seed0"].awp.warmup == 1  # a tenth of its epochs, at least one
    with_it, without = configs["release-seed1"], configs["release-without-awp-seed1"]
    changed = {line.split(":")[0] for line in differences(with_it, without)}
    assert changed == {"awp.gamma", "awp.warmup", "training.epochs"}
    assert without.training.epochs == 3


def test_each_network_is_trained_on_from_the_dense_one_in_a_third_of_its_epochs(script, choice, tmp_path):
    choice.ablations, choice.out = False, tmp_path / "runs"
    configs = script.grid(choice)
    assert [*configs] == [*script.NETWORKS, *(f"{name}-continued" for name in script.NETWORKS), "dense-longer"]
    assert configs["dense-longer"].training.epochs == 20
    for name in script.NETWORKS:
        first, then = configs[name], configs[f"{name}-continued"]
        refuse_conflicts(then)
        assert (first.init, then.init) == (None, str(tmp_path / "runs" / script.START))
        assert (first.training.epochs, then.training.epochs) == (30, 10)
        changed = {line.split(":")[0] for line in differences(first, then)}
        assert changed == {"init", "training.epochs", *script.FROM_START}
    moved = argparse.Namespace(**{**vars(choice), "out": tmp_path / "elsewhere"})
    assert script.recipe(then) == script.recipe(script.grid(moved)[f"{name}-continued"]), "the folder is no part of it"


def test_what_starts_from_the_dense_network_trains_that_one_first(script, choice, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(script, "trained", lambda config, path: made.append(path.name) or _finished(config, path))
    monkeypatch.setattr(script, "evaluate", lambda path, choice: made.append(f"attack {path.name}"))
    monkeypatch.setattr(script, "row", lambda name, choice: {"name": name, "epochs": 0})
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    flags = ["--data-dir", "data", "--out", str(tmp_path / "runs"), "-o", str(tmp_path / "result"), "--threads", "1"]
    assert script.main([*flags, "--only", "block-10-continued"]) == 0
    assert made == ["dense", "block-10-continued", "attack block-10-continued"]


def _finished(config, path):
    return argparse.Namespace(path=path, config=config)


def test_a_share_takes_fewer_images_and_at_least_a_fifth_of_the_passes(script, choice):
    choice.share = 0.01
    config = script.config_of({}, None, choice, script.BUDGET)
    assert (config.data.limit_train, config.data.limit_test, config.selection.held_out) == (500, 20, 20)
    assert config.training.epochs == round(0.2 * script.BUDGET / script.passes(config))


def test_rows_stay_only_where_settings_and_recipe_are_the_same(script, tmp_path):
    path, config = tmp_path / "result.json", resolve(preset="strong")
    row = {"name": "a", "robust": {"value": 0.3}, "config": script.recipe(config)}
    unfinished = {"name": "b", "config": script.recipe(config)}
    assert script.finished_rows(path, SETTINGS, {"a": config}) == {}
    path.write_text(json.dumps({**SETTINGS, "runs": [row, unfinished]}))
    assert script.finished_rows(path, SETTINGS, {"a": config, "b": config}) == {"a": row}
    assert script.finished_rows(path, SETTINGS, {"c": config}) == {}
    assert script.finished_rows(path, {**SETTINGS, "images": 999}, {"a": config}) == {}
    assert script.finished_rows(path, SETTINGS, {"a": dataclasses.replace(config, seed=1)}) == {}
    elsewhere = resolve(preset="strong", flags={"threads": 1, "device": "cpu", "compute.precision": "bf16"})
    assert script.finished_rows(path, SETTINGS, {"a": elsewhere}) == {"a": row}, "what the machine decides"
    row["config"]["training"]["nothing"] = 1
    path.write_text(json.dumps({**SETTINGS, "runs": [row]}))
    assert script.finished_rows(path, SETTINGS, {"a": config}) == {}, "a setting that is no more"
    del row["config"]["training"]["nothing"], row["config"]["training"]["quantize"]
    path.write_text(json.dumps({**SETTINGS, "runs": [row]}))
    assert script.finished_rows(path, SETTINGS, {"a": config}) == {"a": row}, "a setting that is newer than the row"
    other = dataclasses.replace(config, training=dataclasses.replace(config.training, quantize="int8"))
    assert script.finished_rows(path, SETTINGS, {"a": other}) == {}


def test_rows_of_every_scheme_stay(script, choice, tmp_path):
    choice.ablations, choice.out = False, tmp_path / "runs"
    configs = script.grid(choice)
    rows = [{"name": name, "robust": {}, "config": script.recipe(config)} for name, config in configs.items()]
    path = tmp_path / "result.json"
    path.write_text(json.dumps({**SETTINGS, "runs": rows}))
    assert list(script.finished_rows(path, SETTINGS, configs)) == list(configs)


@pytest.mark.parametrize("flags", [[], ["--ablations"]], ids=["trial", "ablations"])
def test_the_committed_results_stay_where_nothing_is_trained(script, tmp_path, monkeypatch, flags):
    """Byte for byte: with other flags than theirs, too."""
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    stem = "cifar_trial_slim" + "_ablations" * bool(flags)
    before = {}
    for suffix in (".json", ".md"):
        before[suffix] = (BENCHMARKS / "results" / (stem + suffix)).read_bytes()
        (tmp_path / f"table{suffix}").write_bytes(before[suffix])
    arguments = ["--data-dir", "no-data", "--out", str(tmp_path / "runs"), "-o", str(tmp_path / "table"), *flags]
    assert script.main([*arguments, "--minutes", "0"]) in (0, script.SLICE_OVER)
    assert {suffix: (tmp_path / f"table{suffix}").read_bytes() for suffix in before} == before


def test_an_attacked_row_stays_while_its_network_is_trained_again(script, choice, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    choice.ablations, choice.out = False, tmp_path / "runs"
    config = script.recipe(script.grid(choice)["dense"])
    row = {"name": "dense", "robust": {"correct": 3, "images": 9, "value": 0.3, "low": 0.1, "high": 0.6}}
    row |= {"config": config, "epochs": 30, "of": 30}
    (tmp_path / "table.json").write_text(json.dumps({**SETTINGS, "runs": [row]}))
    (tmp_path / "runs/dense").mkdir(parents=True)
    arguments = ["--data-dir", "no-data", "--out", str(tmp_path / "runs"), "-o", str(tmp_path / "table")]
    script.main([*arguments, "--minutes", "0"])
    assert json.loads((tmp_path / "table.json").read_text())["runs"][0] == row


def test_the_command_has_what_decides_about_the_table(script, choice):
    flags = shlex.split(script.command(choice))[2:]
    assert flags == ["--data-dir", "data/cifar10", "--ablations", "--threads", "1", "--precision", "fp32"]
    choice.ablations, choice.share, choice.precision = False, 0.5, "bf16"
    flags = shlex.split(script.command(choice))[4:]
    assert flags == ["--threads", "1", "--precision", "bf16", "--share", "0.5"]


def test_a_small_network_is_published_without_the_folders_of_this_machine(script, choice, sparse_run, tmp_path):
    choice.ablations, choice.examples = False, tmp_path / "examples"
    run = open_run(shutil.copytree(sparse_run.path, tmp_path / "run-continued"))
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, init=str(tmp_path / "runs/dense")))
    (run.path / "evaluations").mkdir(exist_ok=True)
    (run.path / "evaluations/autoattack.json").write_text('{"outcomes": 1}')
    for beside in (script.origin, script.cores):
        beside(run.path).write_text("{}")
    script.publish(run, choice)
    names = {path.name for path in choice.examples.iterdir()}
    assert names == {"run-continued", "run-continued.cores.json", "run-continued.origin.json"}
    published = open_run(choice.examples / "run-continued")
    changed = ["data.dir: None, not data/cifar10", "init: None, not runs/slim/dense"]
    assert sorted(differences(sparse_run.config, published.config)) == changed
    assert published.checkpoint() == sparse_run.checkpoint()
    assert (published.path / "evaluations/autoattack.json").read_text() == '{"outcomes": 1}'
    weights = sparse_run.load_model().state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in published.load_model().state_dict().items())


def test_a_large_network_is_not_published(script, choice, sparse_run, tmp_path):
    script.LARGEST_EXAMPLE = 100
    choice.ablations, choice.examples = False, tmp_path / "examples"
    script.publish(sparse_run, choice)
    assert not choice.examples.exists()
