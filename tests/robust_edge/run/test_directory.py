"""What makes a folder a run, what may be deleted, and which files are believed."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import safetensors.torch
import torch

from robust_edge.config.settings import resolve, to_yaml
from robust_edge.run.directory import create_run, open_run
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.core.files import sha256_of
from robust_edge_runtimes.core.locks import locked


def copy_of(run, path):
    path.mkdir()
    for item in run.path.iterdir():
        if item.is_file():
            (path / item.name).write_bytes(item.read_bytes())
    return open_run(path)


def test_a_run_opens_with_its_config_and_its_network(sparse_run):
    run = open_run(sparse_run.path)
    assert run.config == sparse_run.config
    assert run.finished
    model = run.load_model()
    assert not model.training
    stored = safetensors.torch.load_file(run.path / "checkpoint.safetensors")
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("content", [b"\xff\xfe\x00binary", b"a: [", b"unknown_key: 3", b"seed: many"])
def test_a_config_of_something_else_is_not_a_run(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(InputError):
        open_run(tmp_path)


def test_no_config_is_not_a_run(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"is not a run \(no config\.yaml\)"):
            open_run(path)


@pytest.mark.parametrize("name", ["evaluations", "plots", "tensorboard", "run.log"])
def test_a_run_through_whose_links_something_else_would_be_written_is_refused(tmp_path, name):
    run = create_run(tmp_path / "run", resolve(), overwrite=False)
    (run.path / name).symlink_to(tmp_path)
    with pytest.raises(InputError, match=f"{name} is a symbolic link"):
        open_run(run.path)


def test_an_unfinished_run_says_how_to_go_on(tmp_path):
    run = create_run(tmp_path / "run", resolve(), overwrite=False)
    for use in (run.checkpoint, run.load_model):
        with pytest.raises(InputError, match=r"is not finished; resume it: robust-edge compress --resume -o .*run$"):
            use()


@pytest.mark.parametrize("damage", ["exchanged", "cut", "gone"])
def test_weights_that_are_not_those_of_the_record_are_refused(sparse_run, tmp_path, damage):
    run = copy_of(sparse_run, tmp_path / "run")
    weights = run.path / "checkpoint.safetensors"
    if damage == "exchanged":
        tensors = safetensors.torch.load_file(weights)
        tensors["network.11.bias"] += 1e-3
        safetensors.torch.save_file(tensors, weights)
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
    else:
        weights.unlink()
    with pytest.raises(InputError, match=r"checkpoint\.safetensors is missing or not the file that checkpoint\.json"):
        run.load_model()


@pytest.mark.parametrize("name", ["network.11.bias", "std"])
def test_weights_and_statistics_that_hold_nan_are_refused(name, sparse_run, tmp_path):
    run = copy_of(sparse_run, tmp_path / "run")
    weights, record = run.path / "checkpoint.safetensors", run.path / "checkpoint.json"
    tensors = safetensors.torch.load_file(weights)
    tensors[name].flatten()[0] = torch.nan
    safetensors.torch.save_file(tensors, weights)
    record.write_text(json.dumps({**json.loads(record.read_text()), "weights_sha256": sha256_of(weights)}))
    with pytest.raises(InputError, match=rf"{name} holds NaN"):
        run.load_model()


@pytest.mark.parametrize("change", [{"sparsity": 3}, {"seed": "x"}, {"more": 1}, {"metrics": {"a": "b"}}])
def test_a_record_of_something_else_is_refused(sparse_run, tmp_path, change):
    run = copy_of(sparse_run, tmp_path / "run")
    record = json.loads((run.path / "checkpoint.json").read_text())
    (run.path / "checkpoint.json").write_text(json.dumps({**record, **change}))
    with pytest.raises(InputError, match=next(iter(change))):
        run.load_model()


def test_a_network_that_has_changed_since_is_refused(sparse_run, tmp_path):
    run = copy_of(sparse_run, tmp_path / "run")
    text = (run.path / "checkpoint.json").read_text()
    (run.path / "checkpoint.json").write_text(text.replace('"small_cnn"', '"resnet18"'))
    with pytest.raises(InputError, match="does not fit model 'resnet18' as it is now") as caught:
        run.load_model()
    assert "\n" not in str(caught.value)


def snapshot(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def not_a_run(folder, kind):
    """Folders that --overwrite must leave as they are."""
    folder.mkdir()
    if kind == "other files":
        (folder / "thesis.tex").write_text("years of work")
    elif kind == "a project with a config.yaml":
        (folder / "config.yaml").write_text("model: {name: mine}\n")
        (folder / "data").mkdir()
    elif kind == "nothing but a config.yaml of something else":
        (folder / "config.yaml").write_text("model: {name: mine}\n")
    elif kind == "a project with an empty config.yaml":
        (folder / "config.yaml").write_text("")
        (folder / "thesis.tex").write_text("years of work")
    elif kind == "a run with something of the user's":
        create_run(folder, resolve(), overwrite=False)
        (folder / "notes.md").write_text("what I saw")
    return folder


@pytest.mark.parametrize(
    "kind",
    [
        "other files",
        "a project with a config.yaml",
        "nothing but a config.yaml of something else",
        "a project with an empty config.yaml",
        "a run with something of the user's",
    ],
)
def test_overwrite_deletes_nothing_but_runs(tmp_path, kind):
    folder = not_a_run(tmp_path / "folder", kind)
    before = snapshot(folder)
    assert before
    with pytest.raises(InputError):
        create_run(folder, resolve(), overwrite=True)
    assert snapshot(folder) == before


def test_overwrite_replaces_a_run_with_all_it_holds(tmp_path):
    run = create_run(tmp_path / "run", resolve(), overwrite=False)
    for name in ("checkpoint.json", "metrics.jsonl", "resume.pt", ".resume.pt.abc.tmp"):
        (run.path / name).write_text("old")
    (run.path / "plots").mkdir()
    config = resolve(flags={"seed": 7})
    create_run(run.path, config, overwrite=True)
    assert sorted(path.name for path in run.path.iterdir()) == ["config.yaml", "environment.json"]
    assert (run.path / "config.yaml").read_text() == to_yaml(config)


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        create_run(tmp_path / "run", resolve(), overwrite=True)
    assert (tmp_path / "run").read_text() == "mine"


def test_the_name_is_that_of_the_folder(tmp_path, monkeypatch):
    run = create_run(tmp_path / "digits", resolve(), overwrite=False)
    monkeypatch.chdir(run.path)
    assert open_run(type(run.path)(".")).name == "digits"


def test_environment_says_versions_and_machine(sparse_run):
    environment = json.loads((sparse_run.path / "environment.json").read_text())
    assert environment["versions"]["torch"]
    assert environment["machine"]["cores"] >= 1


def test_a_run_that_is_being_evaluated_is_not_replaced(tmp_path):
    run = create_run(tmp_path / "run", resolve(), overwrite=False)
    record = run.evaluations / "pgd.json"
    with locked(record), ThreadPoolExecutor(1) as other, pytest.raises(InputError, match="is being written by"):
        other.submit(create_run, run.path, resolve(), overwrite=True).result()
    (run.evaluations / ".curve.json.lock").touch()  # of a process that was killed
    assert create_run(run.path, resolve(), overwrite=True).config == resolve()
