"""The recipe of release 0.1 as a whole: sparse, selected on held-out images, the same bytes after any interruption.

The last test trains the present preset `strong`; test_recipe.py has its parts in one run that is interrupted.
"""

import json
import math
import os
import subprocess
import sys

import pytest
import safetensors.torch
import torch

from robust_edge.config.settings import resolve
from robust_edge.run.directory import open_run
from robust_edge.training import learner
from robust_edge.training import loop as module
from robust_edge.training.compress import compress, resume
from robust_edge_runtimes.core.errors import InputError, TrainingDiverged

RELEASE_0_1 = {
    "training.epochs": 6,
    "training.label_smoothing": 0.1,
    "training.weight_decay": 0.01,
    "attack.eps_schedule": "linear",
    "averaging.decay": 0.9,
    "averaging.reestimate": 60,
    "awp.gamma": 0.01,
    "awp.warmup": 1,
    "selection.held_out": 40,
    "selection.steps": 2,
    "data.augment": ["crop"],
}
WEIGHTS = "checkpoint.safetensors"


class Killed(BaseException):
    """Stands for the end of the process."""


def tensors(path):
    return safetensors.torch.load_file(path / WEIGHTS)


@pytest.fixture(scope="module")
def release_0_1(tiny):
    return lambda flags=None: tiny({**RELEASE_0_1, **(flags or {})})


@pytest.fixture(scope="module")
def unbroken(release_0_1, tmp_path_factory):
    """A finished run; do not write into it."""
    path = tmp_path_factory.mktemp("release") / "run"
    compress(release_0_1(), path)
    return path


def test_the_written_network_is_sparse_to_the_count(unbroken):
    weights = [t for name, t in tensors(unbroken).items() if name.endswith("weight") and t.ndim > 1]
    assert sum(int(torch.count_nonzero(t)) for t in weights) == 9373


def test_every_epoch_is_judged_and_the_best_masked_one_written(unbroken):
    run = open_run(unbroken)
    rows = run.metrics()
    assert all(row.held_out_robust is not None for row in rows)
    assert [row.images for row in rows] == [160] * 6
    assert [row.awp for row in rows] == [False, True, True, True, True, True]  # after a warm-up of one epoch
    masked = [row for row in rows if row.phase == "masked"]
    best = max(masked, key=lambda row: (row.held_out_robust, row.held_out_clean, row.epoch))
    assert run.checkpoint().epoch == best.epoch
    assert run.checkpoint().diverged is None


def test_the_test_images_decide_nothing(release_0_1, unbroken, tmp_path):
    """With other test images the weights are the same."""
    compress(release_0_1({"data.limit_test": 30}), tmp_path / "run")
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (unbroken / WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    "change",
    [{"averaging.decay": 0.0}, {"averaging.reestimate": 0}, {"awp.gamma": 0.0}, {"training.loss": "trades"}],
    ids=str,
)
def test_every_part_of_the_recipe_takes_part(release_0_1, unbroken, tmp_path, change):
    compress(release_0_1(change), tmp_path / "run")
    old, new = tensors(unbroken), tensors(tmp_path / "run")
    assert any(not torch.equal(old[name], new[name]) for name in old)


@pytest.mark.parametrize("batches", [2, 7, 10, 13, 20])
def test_an_interrupted_run_resumes_to_the_same_bytes(release_0_1, unbroken, tmp_path, batches):
    """Four batches an epoch: in the first epoch, in the ADMM phase, about the hard projection, in the masked phase."""

    def progress(done, total, text):
        if done == batches:
            raise Killed

    path = tmp_path / "run"
    with pytest.raises(Killed):
        compress(release_0_1(), path, progress=progress)
    resume(path)
    for name in (WEIGHTS, "checkpoint.json"):
        assert (path / name).read_bytes() == (unbroken / name).read_bytes()


def test_a_perturbation_that_failed_stays_off_after_a_resume(release_0_1, tmp_path, monkeypatch):
    def failing(model, weights, loss_of, **_):
        loss = loss_of()
        loss.total.backward()
        return loss, False

    def progress(done, total, text):
        if done == 10:
            raise Killed

    path = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr("robust_edge.training.awp.backward", failing)
        with pytest.raises(Killed):
            compress(release_0_1(), path, progress=progress)
    resume(path)
    assert [row.awp for row in open_run(path).metrics()] == [False] * 6


def test_a_small_data_set_keeps_most_of_its_images_and_the_log_says_so(release_0_1, tmp_path):
    compress(release_0_1({"selection.held_out": 1000, "training.epochs": 1}), tmp_path / "run")
    assert open_run(tmp_path / "run").metrics()[0].images == 160
    assert "40 of 200 training images are held out" in (tmp_path / "run/run.log").read_text("utf-8")


def test_too_few_images_to_hold_out_are_refused_before_anything_is_written(release_0_1, tmp_path):
    with pytest.raises(InputError, match=r"selection\.held_out is 2, but there are only 4"):
        compress(release_0_1({"selection.held_out": 2, "data.limit_train": 4}), tmp_path / "run")
    assert not list(tmp_path.iterdir())


def diverging(failing_epoch, monkeypatch):
    """Make the loss of an epoch, counted from 1, NaN."""
    usual = module.train_epoch

    def train_epoch(learner, split, plan, epoch, progress=None, **named):
        result = usual(learner, split, plan, epoch, progress, **named)
        if epoch + 1 < failing_epoch:
            return result
        with torch.no_grad():
            for parameter in learner.model.parameters():
                parameter.fill_(math.nan)
        return type(result)(**{**vars(result), "loss": math.nan})

    monkeypatch.setattr(module, "train_epoch", train_epoch)


@pytest.mark.parametrize("failing_epoch", [2, 6])
@pytest.mark.parametrize("held_out", [0, 40])
def test_a_run_that_diverges_keeps_its_last_good_network(release_0_1, tmp_path, monkeypatch, failing_epoch, held_out):
    path = tmp_path / "run"
    diverging(failing_epoch, monkeypatch)
    for attempt in (lambda: compress(release_0_1({"selection.held_out": held_out}), path), lambda: resume(path)):
        with pytest.raises(
            TrainingDiverged, match=f"epoch {failing_epoch} is nan.*{path} keeps the network after epoch .*training.lr"
        ):
            attempt()
    run = open_run(path)
    checkpoint = run.checkpoint()
    assert checkpoint.diverged == f"the loss of epoch {failing_epoch} is nan"
    assert checkpoint.epoch == failing_epoch - 1 or held_out
    assert all(parameter.isfinite().all() for parameter in run.load_model().parameters())
    assert checkpoint.sparsity.nonzero == (9373 if failing_epoch == 6 else 93728)
    assert len(run.metrics()) == failing_epoch - 1


def test_divergence_in_the_first_epoch_leaves_nothing_to_keep(release_0_1, tmp_path, monkeypatch):
    diverging(1, monkeypatch)
    with pytest.raises(TrainingDiverged, match="no epoch was finished, so there is no checkpoint"):
        compress(release_0_1(), tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.json").exists()


KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from robust_edge.config.settings import from_yaml
from robust_edge.training.compress import compress, resume

folder, config = Path(sys.argv[1]), from_yaml(Path(sys.argv[2]).read_text(), "config")
torch.set_num_threads(1)

def child(path):
    pid = os.fork()
    if pid:
        return pid
    try:
        resume(path) if (path / "config.yaml").is_file() else compress(config, path)
        os._exit(0)
    finally:
        os._exit(1)

start = time.monotonic()
assert os.waitpid(child(folder / "unbroken"), 0)[1] == 0
whole, kills, runs, draw = time.monotonic() - start, 0, [folder / "broken-0"], random.Random(7)
while True:
    pid = child(runs[-1])
    if kills < 10:
        time.sleep(draw.uniform(0, whole / 5))
        os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    kills += os.WIFSIGNALED(status)
    assert os.WIFSIGNALED(status) or status == 0, status
    if status == 0:
        if kills >= 10:
            break
        runs.append(folder / f"broken-{len(runs)}")
rows = [len((run / "metrics.jsonl").read_bytes().splitlines()) for run in runs]
print(json.dumps({"kills": kills, "runs": [run.name for run in runs], "rows": rows}))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_ten_kills_at_random_moments_change_no_bit(release_0_1, tmp_path):
    """SIGKILL at ten random moments, and a resume each time; the processes are forks of one that has imported all."""
    from robust_edge.config.settings import to_yaml

    (tmp_path / "config.yaml").write_text(to_yaml(release_0_1({"training.epochs": 12})))
    command = [sys.executable, "-c", KILLER, str(tmp_path), str(tmp_path / "config.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    story = json.loads(done.stdout)
    assert story["kills"] == 10
    for name in story["runs"]:
        assert (tmp_path / name / WEIGHTS).read_bytes() == (tmp_path / "unbroken" / WEIGHTS).read_bytes()
    assert all(rows == 12 for rows in story["rows"])


def test_the_preset_strong_is_a_config_that_runs(tmp_path, monkeypatch):
    """ADMM and the masked phase in five epochs; the mask moves and keeps the number of its weights."""
    flags = {"data.limit_train": 120, "training.epochs": 5, "selection.held_out": 20, "threads": 1}
    moved, move_mask = [], learner.move_mask

    def recorded(state, model, optimizer, share):
        before = {name: mask.clone() for name, mask in state.masks.items()}
        move_mask(state, model, optimizer, share)
        moved.append(sum(int((mask != before[name]).sum()) for name, mask in state.masks.items()))

    monkeypatch.setattr(learner, "move_mask", recorded)
    path = tmp_path / "run"
    checkpoint = compress(resolve(preset="strong", flags={**flags, "admm.regrow_interval": 1}), path)
    assert [row.phase for row in open_run(path).metrics()] == ["admm"] * 2 + ["masked"] * 3
    assert any(moved)
    assert all(count % 2 == 0 for count in moved), "as many return as leave"
    assert checkpoint.sparsity.nonzero == 9373
    assert checkpoint.epoch == 5  # the only one whose mask is final
