"""A whole run: repeatable to the byte, resumable after a kill at any moment, exact in what it keeps."""

import dataclasses
import errno
import io
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from robust_edge.config.settings import resolve
from robust_edge.data import load_dataset
from robust_edge.run.directory import OWN, open_run
from robust_edge.training import compress as module
from robust_edge.training.compress import compress, resume
from robust_edge_runtimes.core.errors import InputError, TrainingDiverged

RESULTS = ("checkpoint.safetensors", "checkpoint.json")


class Killed(BaseException):
    """Stands for the end of the process."""


def results(path):
    return [(path / name).read_bytes() for name in RESULTS]


def epochs_of(path):
    return [dataclasses.replace(row, seconds=0.0) for row in open_run(path).metrics()]


def interrupt_after(batches) -> Callable[..., None]:
    def progress(done, total, text):
        if done == batches:
            raise Killed

    return progress


def test_two_runs_with_one_seed_are_the_same_to_the_byte(tiny, sparse_run, tmp_path):
    torch.manual_seed(1234)  # what the process did before plays no part
    compress(tiny(), tmp_path / "again")
    assert results(tmp_path / "again") == results(sparse_run.path)
    assert epochs_of(tmp_path / "again") == epochs_of(sparse_run.path)


def test_two_runs_that_ask_for_deterministic_kernels_are_the_same_to_the_byte(tiny, tmp_path):
    for name in ("one", "other"):
        compress(tiny({"deterministic": True}), tmp_path / name)
    weights = [(tmp_path / name / "checkpoint.safetensors").read_bytes() for name in ("one", "other")]
    assert weights[0] == weights[1]
    assert epochs_of(tmp_path / "one") == epochs_of(tmp_path / "other")


def test_the_last_look_at_the_network_is_progress_too(tiny, tmp_path):
    reports = []
    compress(tiny(), tmp_path / "run", progress=lambda done, total, text: reports.append((done, total, text)))
    images = int(open_run(tmp_path / "run").checkpoint().metrics["images"])
    assert reports[-1] == (3, 3, f"evaluated on {images} of {images} test images")
    assert reports[-2][2].startswith("epoch 3 loss")


def test_another_seed_gives_another_network(tiny, sparse_run, tmp_path):
    compress(tiny({"seed": 1}), tmp_path / "other")
    assert results(tmp_path / "other")[0] != results(sparse_run.path)[0]


@pytest.mark.parametrize("flags", [{}, {"pruning.scope": "layer"}, {"training.epochs": 1}, {"pruning.keep": 0.03}])
def test_the_written_file_holds_exactly_the_kept_count(tiny, tmp_path, flags):
    config = tiny({"training.weight_decay": 0.01, **flags})
    checkpoint = compress(config, tmp_path / "run")
    tensors = safetensors.torch.load_file(tmp_path / "run" / "checkpoint.safetensors")
    prunable = {name: t for name, t in tensors.items() if name.endswith("weight") and t.ndim > 1}
    total = sum(t.numel() for t in prunable.values())
    assert total == 93728
    assert sum(int(torch.count_nonzero(t)) for t in prunable.values()) == round(config.pruning.keep * total)
    assert checkpoint.sparsity.nonzero == round(config.pruning.keep * total)
    assert {layer.name: layer.nonzero for layer in checkpoint.sparsity.layers} == {
        name: int(torch.count_nonzero(t)) for name, t in prunable.items()
    }
    for name, tensor in tensors.items():
        if name not in prunable and name.endswith(("weight", "bias")):
            assert torch.count_nonzero(tensor) > 0, f"{name} is not prunable"


def test_a_dense_run_keeps_everything(benign_run):
    checkpoint = benign_run.checkpoint()
    assert checkpoint.sparsity.nonzero == checkpoint.sparsity.weights
    assert checkpoint.metrics["clean_accuracy"] == checkpoint.metrics["robust_accuracy"]


def test_the_directory_holds_what_a_run_holds(sparse_run):
    names = {path.name for path in sparse_run.path.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "run.log", "environment.json", *RESULTS} <= names <= OWN
    assert "resume.pt" not in names
    assert [row.epoch for row in sparse_run.metrics()] == [1, 2, 3]
    assert [row.phase for row in sparse_run.metrics()] == ["admm", "masked", "masked"]


@pytest.mark.parametrize("batches", [1, 4, 5, 9, 12])
def test_an_interrupted_run_resumes_to_the_same_bytes(tiny, sparse_run, tmp_path, batches):
    path = tmp_path / "run"
    with pytest.raises(Killed):
        compress(tiny(), path, progress=interrupt_after(batches))
    assert not any((path / name).exists() for name in RESULTS)
    assert not open_run(path).finished
    resume(path)
    assert results(path) == results(sparse_run.path)
    assert epochs_of(path) == epochs_of(sparse_run.path)


def test_a_run_may_be_interrupted_twice(tiny, sparse_run, tmp_path):
    path = tmp_path / "run"
    with pytest.raises(Killed):
        compress(tiny(), path, progress=interrupt_after(5))
    with pytest.raises(Killed):
        resume(path, progress=interrupt_after(10))
    resume(path)
    assert results(path) == results(sparse_run.path)


WRITES = [("config.yaml", 1), ("environment.json", 1), *((name, 1) for name in RESULTS)]
WRITES += [(name, occurrence) for name in ("metrics.jsonl", "resume.pt") for occurrence in (1, 2)]


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize(("name", "occurrence"), WRITES)
def test_death_around_any_write_loses_at_most_an_epoch(
    tiny, sparse_run, tmp_path, monkeypatch, name, moment, occurrence
):
    """Every file of a run appears by a rename; the process dies just before or just after it."""
    path, count = tmp_path / "run", 0
    rename = Path.replace

    def dying(self, target):
        nonlocal count
        count += Path(target).name == name
        dies = Path(target).name == name and count == occurrence
        if dies and moment == "before":
            raise Killed
        result = rename(self, target)
        if dies:
            raise Killed
        return result

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", dying)
        patched.setattr(Path, "unlink", lambda self, missing_ok=False: None)  # a dead process cleans up nothing
        with pytest.raises(Killed):
            compress(tiny(), path)
    assert bool(list(path.glob(".*.tmp"))) == (moment == "before")
    resume(path) if (path / "config.yaml").is_file() else compress(tiny(), path)
    assert results(path) == results(sparse_run.path)
    assert epochs_of(path) == epochs_of(sparse_run.path)
    if (name, moment) != ("checkpoint.json", "after"):  # finished; resume touches no finished run
        names = {"config.yaml", "environment.json", "metrics.jsonl", "run.log", *RESULTS}
        assert {item.name for item in path.iterdir()} - {"run.log"} == names - {"run.log"}


def test_resuming_a_finished_run_changes_nothing(sparse_run):
    before = {path: path.stat().st_mtime_ns for path in sparse_run.path.iterdir()}
    assert resume(sparse_run.path) == sparse_run.checkpoint()
    assert {path: path.stat().st_mtime_ns for path in sparse_run.path.iterdir()} == before


@pytest.fixture
def broken_off(tiny, tmp_path):
    """A run that ended after its first epoch."""
    path = tmp_path / "run"
    with pytest.raises(Killed):
        compress(tiny(), path, progress=interrupt_after(5))
    assert (path / "resume.pt").is_file()
    return path


def refused(path, match):
    with pytest.raises(InputError, match=match) as caught:
        resume(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "empty", "bit", "noise"])
def test_a_damaged_resume_file_is_noticed(broken_off, damage):
    path = broken_off / "resume.pt"
    data = bytearray(path.read_bytes())
    if damage == "bit":
        data[len(data) // 2] ^= 1
    path.write_bytes({"cut": data[:-1000], "empty": b"", "bit": data, "noise": b"\x80" * 100}[damage])
    refused(broken_off, r"resume\.pt is damaged.*`overwrite`")


def test_code_in_a_resume_file_is_not_run(broken_off, tmp_path):
    class Explosion:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "mark"),))

    torch.save({"epoch": 1, "model": Explosion()}, broken_off / "resume.pt")
    refused(broken_off, r"resume\.pt is damaged")
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("state", [{}, {"epoch": 1}, {"epoch": "x"}, [1], None])
def test_a_resume_file_of_something_else_is_refused(broken_off, state):
    torch.save(state, broken_off / "resume.pt")
    refused(broken_off, r"resume\.pt")


def test_a_resume_file_of_another_network_is_refused(broken_off):
    state = torch.load(broken_off / "resume.pt", weights_only=True)
    state["model"]["network.11.weight"] = torch.zeros(7, 128)
    torch.save(state, broken_off / "resume.pt")
    refused(broken_off, r"does not fit this run .*network\.11\.weight")


def test_other_images_than_at_the_start_are_refused(broken_off):
    text = (broken_off / "config.yaml").read_text()
    (broken_off / "config.yaml").write_text(text.replace("limit_test: 60", "limit_test: 61"))
    refused(broken_off, "images are not those that")


def test_damaged_metrics_are_refused(broken_off):
    (broken_off / "metrics.jsonl").write_text('{"epoch": 1\n')
    refused(broken_off, r"metrics\.jsonl is damaged")


def test_resume_needs_a_run(tmp_path):
    refused(tmp_path, "is not a run")


def test_an_existing_run_is_kept_unless_overwritten(tiny, sparse_run, tmp_path):
    path = tmp_path / "run"
    compress(tiny({"training.epochs": 1}), path)
    before = results(path)
    with pytest.raises(InputError, match=r"exists; choose another path, or pass `overwrite`"):
        compress(tiny(), path)
    assert results(path) == before
    compress(tiny(), path, overwrite=True)
    assert results(path) == results(sparse_run.path)
    assert len(open_run(path).metrics()) == 3


def test_a_folder_that_is_taken_is_refused_before_the_data_is_read(tiny, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    monkeypatch.setattr(module, "load_dataset", lambda config: pytest.fail("the data was read"))
    for overwrite, reason in ((False, "exists; choose another path"), (True, "`overwrite` replaces runs only")):
        with pytest.raises(InputError, match=reason):
            compress(tiny(), tmp_path / "run", overwrite=overwrite)


def test_an_empty_folder_may_be_filled(tiny, tmp_path):
    (tmp_path / "run").mkdir()
    compress(tiny({"training.epochs": 1}), tmp_path / "run")


@pytest.mark.parametrize(
    "flags",
    [
        {"data.dataset": "digit"},
        {"data.dataset": "folder", "data.dir": "/nowhere"},
        {"arch": "resnet"},
        {"device": "cuda:99"},
        {"pruning.keep": 1e-6},
        {"attack.eps_schedule": [0.1]},
        {"init": "/nowhere.pth"},
    ],
)
def test_mistakes_show_before_anything_is_written(tiny, tmp_path, flags):
    with pytest.raises(InputError):
        compress(tiny(flags), tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_a_loss_that_is_no_number_any_more_is_reported(tiny, tmp_path, eps):
    with pytest.raises(TrainingDiverged, match=r"training diverged: the loss of epoch \d is (nan|inf).*training\.lr"):
        compress(tiny({"training.lr": 1e20, "attack.eps": eps}), tmp_path / "run")
    assert not open_run(tmp_path / "run").finished


def test_weights_that_explode_in_the_last_step_of_an_epoch_are_reported(tiny, tmp_path):
    """One batch an epoch: its loss is that before the step."""
    with pytest.raises(
        TrainingDiverged, match=r"the \w+ of epoch 1 is (nan|inf); no epoch was finished, so there is no checkpoint"
    ):
        compress(tiny({"training.lr": 1e22, "training.batch_size": 200}), tmp_path / "run")


def test_a_run_goes_on_without_the_file_it_started_from(tiny, sparse_run, tmp_path):
    given = tmp_path / "given.safetensors"
    given.write_bytes((sparse_run.path / "checkpoint.safetensors").read_bytes())
    compress(tiny({"init": str(given)}), tmp_path / "whole")
    with pytest.raises(Killed):
        compress(tiny({"init": str(given)}), tmp_path / "run", progress=interrupt_after(5))
    given.unlink()
    resume(tmp_path / "run")
    assert results(tmp_path / "run")[0] == results(tmp_path / "whole")[0]


def test_a_start_from_given_weights(tiny, sparse_run, tmp_path):
    """With no step to speak of, the run ends with the weights it was given, projected."""
    given = sparse_run.path / "checkpoint.safetensors"
    compress(tiny({"init": str(given), "training.lr": 1e-20, "training.epochs": 1}), tmp_path / "run")
    old, new = (safetensors.torch.load_file(p / "checkpoint.safetensors") for p in (sparse_run.path, tmp_path / "run"))
    assert all(torch.equal(old[name], new[name]) for name in old if name.endswith("weight"))


def test_the_closing_figures_are_of_the_test_images(sparse_run):
    model, split = sparse_run.load_model(), load_dataset(sparse_run.config.data).test
    with torch.no_grad():
        right = (model(split.floats(slice(None))).argmax(1) == split.labels).double().mean()
    metrics = sparse_run.checkpoint().metrics
    assert metrics["clean_accuracy"] == float(right)
    assert 0 <= metrics["robust_accuracy"] <= metrics["clean_accuracy"]
    assert metrics["attack_eps"] == 0.1


def test_a_full_disk_leaves_no_half_written_file(tiny, tmp_path, monkeypatch):
    path, writes = tmp_path / "run", 0
    fsync = os.fsync

    def full(handle):
        nonlocal writes
        writes += 1
        if writes > 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            compress(tiny(), path)
    assert not list(path.glob(".*"))
    assert not open_run(path).finished
    resume(path)
    assert open_run(path).finished


def rows(path):
    file = path / "metrics.jsonl"
    return file.read_text().count("\n") if file.is_file() else 0


def until(holds, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize(("epochs", "delay"), [(0, 0.0), (0, 0.15), (1, 0.05), (2, 0.0)])
def test_a_killed_process_resumes_to_the_same_bytes(tiny_flags, sparse_run, start, tmp_path, epochs, delay):
    """SIGKILL some time after so many epochs, at whatever the process is doing then."""
    path = tmp_path / "run"
    process = start("compress", *tiny_flags, "-o", path)
    until(lambda: process.poll() is not None or ((path / "config.yaml").is_file() and rows(path) >= epochs))
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if epochs < 2:  # after two of three epochs the process may have been faster
        assert process.returncode == -signal.SIGKILL, process.stderr.read()
        assert not (path / "checkpoint.json").exists()
    resume(path)
    assert results(path)[0] == results(sparse_run.path)[0]
    assert epochs_of(path) == epochs_of(sparse_run.path)
    assert not list(path.glob(".*"))


def test_the_checkpoint_says_what_the_file_is(sparse_run):
    stored = json.loads((sparse_run.path / "checkpoint.json").read_text())
    assert stored["dataset"] == "digits"
    assert stored["dataset_fingerprint"] == load_dataset(sparse_run.config.data).fingerprint()
    assert stored["seed"] == sparse_run.config.seed
    assert stored["versions"]["torch"] == torch.__version__.partition("+")[0] or torch.__version__


def test_the_preset_quick_is_a_config_that_runs(tmp_path):
    config = resolve(preset="quick", flags={"data.limit_train": 100, "training.epochs": 2, "threads": 1})
    assert compress(config, tmp_path / "run").sparsity.nonzero == 9373


def test_resume_state_is_plain_tensors(broken_off):
    state = torch.load(io.BytesIO((broken_off / "resume.pt").read_bytes()), weights_only=True)
    assert state["epoch"] == 1
    assert set(state["admm"]["dual"]) == set(state["admm"]["target"]) == set(module.prunable_parameters(_model()))


def _model():
    from robust_edge.models import ModelSpec, build_model

    spec = ModelSpec(arch="small_cnn", shape=(1, 8, 8), classes=tuple("0123456789"), mean=(0.0,), std=(1.0,))
    return build_model(spec)
