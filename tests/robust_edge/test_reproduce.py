"""The thesis' grid: every network has its config, and slices of any length end with the table of an unbroken run."""

import itertools
import json
import signal
import sys
import time
from pathlib import Path

import pytest

from robust_edge.config.settings import resolve
from robust_edge.run.directory import create_run, open_run
from robust_edge.training.schedules import schedules

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = ("training.epochs=2", "training.batch_size=20", "attack.steps=1", "threads=1")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import reproduce

    yield reproduce
    for name in ("reproduce", "trial_grid"):
        sys.modules.pop(name, None)


def options(tmp_path, *more):
    return ["--data-dir", str(tmp_path), "-o", str(tmp_path / "table"), "--out", str(tmp_path / "runs"), *more]


def test_the_grid_is_the_thesis(script, monkeypatch, tmp_path):
    taken = []
    monkeypatch.setattr(script, "trained", lambda config, path: taken.append((path.name, config)))
    attacked = []
    monkeypatch.setattr(script, "attacked", lambda run, attack, choice: attacked.append(attack))
    assert script.main(options(tmp_path)) == 0
    strong, taken = taken[:4], taken[4:]
    assert [name for name, _ in strong] == list(script.STRONG)
    assert [(config.arch, config.pruning.keep) for _, config in strong] == [
        ("resnet34", 0.1), ("mobilenet_v2", 0.1), ("resnet34", 0.5), ("resnet34", 0.05),
    ]  # fmt: skip
    assert {(config.data.dataset, config.attack.eps) for _, config in strong} == {("cifar10", 8 / 255)}
    assert all(config.averaging.decay > 0 for _, config in strong)
    assert attacked == ["thesis-autoattack", "autoattack"] * 4 + ["thesis-autoattack"] * 18
    found = {(config.arch, config.attack.eps, config.pruning.keep) for _, config in taken}
    assert len(taken) == 18
    assert found == set(itertools.product(("resnet34", "mobilenet_v2"), (0.0, 0.0075, 0.025), (1.0, 0.5, 0.1)))
    assert taken[0][0] == "resnet34-eps0.1-100"
    for name, config in taken:
        plan = schedules(config)
        assert (len(plan.eps), plan.lr[0], plan.lr[10] < 0.05) == (200, 0.05, True)
        assert (config.data.dataset, config.data.augment) == ("cifar10", ("flip", "rotate"))
        assert config.training.adversarial_weight == 0.9
        assert name.endswith(f"-{100 * config.pruning.keep:g}")
        assert (name in script.THESIS) == config.robust
        assert not config.robust or config.attack.eps == pytest.approx(0.25 * float(name.split("-")[1][3:]))


@pytest.fixture
def small(script, monkeypatch, tmp_path):
    """Two networks of the grid that train in a second, and their table."""
    (tmp_path / "grid").mkdir()
    for name, keep in (("resnet34-eps0.1-100", 1.0), ("resnet34-eps0.1-10", 0.1)):
        data = "{dataset: digits, limit_train: 100, limit_test: 10}"
        text = f"arch: small_cnn\ndata: {data}\npruning: {{keep: {keep}}}\n"
        (tmp_path / "grid" / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(script, "CONFIGS", tmp_path / "grid")
    return [part for assignment in SMALL for part in ("--set", assignment)] + ["--device", "cpu"]


def weights(folder):
    return {path.name: (path / "checkpoint.safetensors").read_bytes() for path in folder.iterdir()}


# the end of a slice may interrupt a destructor, or a callback of the garbage collector, and is then sent again
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_slices_end_with_the_table_of_an_unbroken_run(script, small, tmp_path, monkeypatch):
    """The first slice is over before anything is trained; each batch that a later one does stays done."""
    monkeypatch.setattr(script, "THESIS_AUTOATTACK", "pgd")  # AutoAttack takes a minute for ten images
    whole, sliced = tmp_path / "whole", tmp_path / "sliced"
    assert script.main(options(tmp_path, *small, "--out", str(whole))) == 0
    expected = json.loads((tmp_path / "table.json").read_text())["runs"]
    codes = []
    while not codes or codes[-1] != 0:
        minutes = 0.05 * 1.5 ** len(codes) / 60  # longer and longer, so that it ends on any machine
        codes.append(script.main(options(tmp_path, *small, "--out", str(sliced), "--minutes", str(minutes))))
    assert codes[0] == script.SLICE_OVER == 75
    assert weights(sliced) == weights(whole)
    found = json.loads((tmp_path / "table.json").read_text())["runs"]
    for left, right in zip(found, expected, strict=True):
        assert left.pop("training_seconds") >= 0 <= right.pop("training_seconds")
        assert left["pgd"].pop("seconds") >= 0 <= right["pgd"].pop("seconds")
        assert left == right
    text = (tmp_path / "table.md").read_text()
    assert list(found[0]["pgd"]["accuracies"]) == ["benign", "pgd"]
    assert "; thesis 77.25 |" in text
    assert open_run(sliced / "resnet34-eps0.1-10").checkpoint().sparsity.nonzero == 9373


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_slice_ends_although_a_destructor_swallowed_its_signal(script, monkeypatch):
    import trial_grid

    monkeypatch.setattr(trial_grid, "REMINDER_SECONDS", 1.0)
    survived = []

    class Closing:
        def __del__(self):
            time.sleep(30)  # the handler's exception ends this, and Python drops it

    def work():
        closing = Closing()
        del closing
        survived.append(True)
        time.sleep(30)

    begun = time.monotonic()
    assert not trial_grid.done_within(1 / 60, work)
    assert survived
    assert time.monotonic() - begun < 20


def test_a_deferred_signal_is_not_sent_again(script, monkeypatch):
    """Training ends at once at the second one."""
    import trial_grid

    monkeypatch.setattr(trial_grid, "REMINDER_SECONDS", 0.05)
    received = []

    def work():
        end = signal.signal(signal.SIGTERM, lambda *_: received.append(True))
        while not received:
            time.sleep(0.01)
        time.sleep(0.5)  # ten reminders' time
        signal.signal(signal.SIGTERM, end)
        signal.raise_signal(signal.SIGTERM)

    assert not trial_grid.done_within(1 / 60, work)
    assert received == [True]


def test_what_is_not_there_yet_is_a_dash(script, small, tmp_path):
    assert script.main(options(tmp_path, *small, "--minutes", "0")) == 75
    assert "| resnet34-eps0.1-10 | not run | –; thesis 66.7 | –; thesis 42.9 |" in (tmp_path / "table.md").read_text()


def test_a_run_that_has_only_just_begun_has_a_row(script, tmp_path):
    """Its config is the first file that is written."""
    run = create_run(tmp_path / "resnet34-strong-10", resolve(preset="quick"), overwrite=False)
    (run.path / "environment.json").unlink()
    found = script.row(run.name, run.path, None)
    assert (found["preset"], found["epochs"], found["device"]) == ("strong", 0, "–")
    assert script.table([found]).splitlines()[-1].split(" | ")[1] == "not run"


def test_both_sets_stand_in_a_row(script):
    """The last stage of the standard set is all of it; the flags are those of both."""
    accuracy = {"correct": 50, "images": 100, "value": 0.5, "low": 0.4, "high": 0.6}
    records = {
        "thesis-autoattack": {"accuracies": {"benign": accuracy, "square": accuracy}, "flags": ["few_steps"]},
        "autoattack": {"accuracies": {"benign": accuracy, "square": {**accuracy, "value": 0.25}}, "flags": []},
    }
    row = {
        "name": "resnet34-strong-10",
        "epochs": 9,
        "training_seconds": 90.0,
        "device": "a GPU",
        "keep": 0.1,
        **records,
    }
    cells = script.table([row]).splitlines()[-1].strip("| ").split(" | ")
    assert cells[1] == "10.0%"
    assert [cell.split()[0] for cell in cells[2:5]] == ["50.0", "50.0", "25.0"]
    assert cells[5:] == ["few_steps", "1.5 minutes", "a GPU"]


DRY = {
    "arch": "small_cnn",
    "data": "{dataset: digits, limit_train: 100, limit_test: 10, augment: []}",
    "training.epochs": 4,
    "training.batch_size": 20,
    "selection": "{held_out: 20, steps: 1}",
    "admm.interval": 2,
    "averaging.reestimate": 20,
    "threads": 1,
}


def test_a_dry_run_of_the_plan_for_minutes(script, monkeypatch, tmp_path):
    """The recipe of the GPU on a small network: both are trained before the first is attacked."""
    monkeypatch.setattr(script, "AUTOATTACK", "pgd")  # AutoAttack takes a minute for ten images
    order, train, attack = [], script.trained, script.attacked

    def trained(config, path):
        order.append(("trained", path.name))
        return train(config, path)

    def attacked(run, *arguments):
        order.append(("attacked", run.name))
        return attack(run, *arguments)

    monkeypatch.setattr(script, "trained", trained)
    monkeypatch.setattr(script, "attacked", attacked)
    settings = [part for name, value in DRY.items() for part in ("--set", f"{name}={value}")]
    chosen = options(tmp_path, "--plan", "minutes", "--device", "cpu", *settings)
    assert script.main([*chosen, "--minutes", "0"]) == 75
    order.clear()
    assert script.main(chosen) == 0
    assert order == [(work, name) for work in ("trained", "attacked") for name in script.FAST]
    found = json.loads((tmp_path / "table.json").read_text())
    assert found["limit"] == 1000
    assert [item["name"] for item in found["runs"]] == list(script.FAST)
    for item in found["runs"]:
        assert item["epochs"] == 4
        assert item["keep"] == pytest.approx(0.1, abs=1e-3)
        assert 0 <= item["pgd"]["accuracies"]["pgd"]["value"] <= item["pgd"]["accuracies"]["benign"]["value"] <= 1
    config = open_run(tmp_path / "runs" / "resnet34-fast-10").config
    assert (config.compute.precision, config.training.adversarial_weight, config.attack.eps) == ("bf16", 1.0, 8 / 255)


@pytest.mark.parametrize(("more", "name"), [([], "reproduce"), (["--plan", "minutes"], "reproduce_minutes")])
def test_each_plan_has_a_result_of_its_own(script, monkeypatch, tmp_path, more, name):
    written = []
    monkeypatch.setattr(script, "write_results", lambda out, *_: written.append(out))
    chosen = ["--data-dir", str(tmp_path), "--out", str(tmp_path / "runs"), "--minutes", "0", *more]
    assert script.main(chosen) == 75
    assert written == [BENCHMARKS / "results" / name]


def test_an_unknown_network_is_named(script, tmp_path):
    with pytest.raises(SystemExit, match=r"--only resnet50: no such network; there are resnet34-strong-10"):
        script.main(options(tmp_path, "--only", "resnet50"))
