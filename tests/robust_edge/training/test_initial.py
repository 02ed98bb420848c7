"""Runs that go on from a network that exists: what is taken over, what is held, and what is refused."""

import shutil

import pytest
import safetensors.torch
import torch
from torch import nn

pytest.importorskip("onnx", reason="the imported network is ONNX")
pytest.importorskip("onnxruntime", reason="an import is compared with onnxruntime")

from robust_edge.config.settings import resolve
from robust_edge.importing.run import ImportSettings, import_run
from robust_edge.models.small_cnn import small_cnn
from robust_edge.run.directory import open_run
from robust_edge.training import compress as module
from robust_edge.training.compress import compress, resume
from robust_edge_runtimes.core.errors import InputError
from tests.robust_edge.importing.test_import import network, written

NAMES = tuple("9876543210")
"""Of the imported network: not in the order of the data set."""
BENIGN = {"attack.eps": 0.0, "training.epochs": 1}


@pytest.fixture(autouse=True)
def _no_check_of_targets(monkeypatch):
    """It exports the network, which takes seconds; one test does without this."""
    monkeypatch.setattr(module, "require_any_target", lambda model, shape: None)
    monkeypatch.setattr("robust_edge.training.quantised.require_targets", lambda *_: None)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A run of an ONNX file of which about half the weights are zero; do not write into it."""
    folder = tmp_path_factory.mktemp("imported")
    source = network()
    with torch.no_grad():
        for layer in (source[0], source[5], source[10]):
            layer.weight.masked_fill_(torch.rand_like(layer.weight) < 0.5, 0)
    path = written(source, folder / "m.onnx", 13)
    config = resolve(flags={"data.limit_train": 200, "data.limit_test": 60, "attack.eps": 0.0})
    import_run(path, config, folder / "run", ImportSettings(mean=(0.3,), std=(0.7,), classes=NAMES))
    return open_run(folder / "run")


def weights_of(run):
    """The prunable tensors of the written file."""
    tensors = safetensors.torch.load_file(run.path / "checkpoint.safetensors")
    return {layer.name: tensors[layer.name] for layer in run.checkpoint().sparsity.layers}


def compressed(config, path):
    compress(config, path)
    return open_run(path)


@pytest.mark.parametrize("flags", [{}, {"training.weight_decay": 0.1, "averaging.decay": 0.9, "training.epochs": 2}])
def test_an_imported_network_keeps_exactly_its_zeros(tiny, imported, tmp_path, flags):
    config = tiny({**BENIGN, "init": str(imported.path), "pruning.keep_mask": True, **flags})
    run = compressed(config, tmp_path / "run")
    before, after = weights_of(imported), weights_of(run)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name] == 0, before[name] == 0) for name in before)
    assert not any(torch.equal(after[name], before[name]) for name in before)
    assert {row.phase for row in run.metrics()} == {"masked"}
    assert run.checkpoint().sparsity == imported.checkpoint().sparsity


def test_what_an_imported_network_says_of_itself_is_taken_over(tiny, imported, tmp_path):
    run = compressed(tiny({**BENIGN, "init": str(imported.path)}), tmp_path / "run")
    spec = run.checkpoint().model
    assert spec == imported.checkpoint().model
    assert run.config.arch == spec.arch == "network.onnx"
    assert (spec.classes, spec.mean, spec.std) == (NAMES, (0.3,), (0.7,))
    log = (run.path / "run.log").read_text()
    assert f"initial network: network.onnx of {imported.path}" in log
    assert "normalisation of the initial run: mean [0.3], std [0.7]" in log
    given = compressed(
        tiny({**BENIGN, "init": str(imported.path), "data.mean": [0.1], "data.std": [0.5]}), tmp_path / "given"
    )
    assert (given.checkpoint().model.mean, given.checkpoint().model.std) == ((0.1,), (0.5,))


@pytest.mark.parametrize("scheme", ["irregular", "nm"])
def test_held_zeros_stay_while_more_are_pruned(tiny, imported, tmp_path, scheme):
    flags = {"init": str(imported.path), "pruning.keep_mask": True, "pruning.keep": 0.3, "pruning.scheme": scheme}
    run = compressed(tiny({**flags, "training.epochs": 3}), tmp_path / "run")
    before, after = weights_of(imported), weights_of(run)
    assert [row.phase for row in run.metrics()] == ["admm", "masked", "masked"]
    assert not any(after[name][before[name] == 0].any() for name in before)
    kept = run.checkpoint().sparsity.keep
    assert kept == pytest.approx(0.3, abs=0.002) if scheme == "irregular" else kept <= 0.3


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("keep", [1.0, 0.3])
def test_resuming_needs_nothing_of_the_initial_run(tiny, imported, tmp_path, keep):
    first = shutil.copytree(imported.path, tmp_path / "first")
    flags = {"init": str(first), "pruning.keep_mask": True, "pruning.keep": keep, "new_head": True}
    config = tiny({**flags, "training.freeze_batchnorm": True, "averaging.decay": 0.9})
    compress(config, tmp_path / "whole")

    def die(done, total, text):
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        compress(config, tmp_path / "run", progress=die)
    shutil.rmtree(first)
    resume(tmp_path / "run")
    names = ("checkpoint.safetensors", "network.onnx")
    ours, whole = ([(tmp_path / folder / name).read_bytes() for name in names] for folder in ("run", "whole"))
    assert ours == whole
    assert open_run(tmp_path / "run").load_model().spec.mean == (0.3,)


def test_without_epochs_the_network_is_unchanged_to_the_bit(tiny, imported, sparse_run, tmp_path):
    for source in (imported, sparse_run):
        run = compressed(
            tiny({"init": str(source.path), "training.epochs": 0, "pruning.keep": 1.0, "averaging.reestimate": 50}),
            tmp_path / source.name,
        )
        old, new = (safetensors.torch.load_file(r.path / "checkpoint.safetensors") for r in (source, run))
        assert old.keys() == new.keys()
        assert all(torch.equal(old[name], new[name]) for name in old)


def test_without_epochs_a_smaller_keep_projects(tiny, imported, tmp_path):
    run = compressed(tiny({"init": str(imported.path), "training.epochs": 0, "pruning.keep": 0.25}), tmp_path / "run")
    before, after = weights_of(imported), weights_of(run)
    sparsity = run.checkpoint().sparsity
    assert sparsity.nonzero == round(0.25 * sparsity.weights)
    assert all(torch.equal(after[name][after[name] != 0], before[name][after[name] != 0]) for name in after)


def test_frozen_batch_norms_do_not_change(tiny, sparse_run, imported, tmp_path):
    for source, norms in ((sparse_run, ("network.1.", "network.4.", "network.7.")), (imported, ("network.1.",))):
        flags = {"init": str(source.path), "training.freeze_batchnorm": True, "training.weight_decay": 0.1}
        run = compressed(tiny({**flags, "training.epochs": 1, "averaging.reestimate": 50}), tmp_path / source.name)
        old, new = (safetensors.torch.load_file(r.path / "checkpoint.safetensors") for r in (source, run))
        frozen = [name for name in old if name.startswith(norms)]
        assert len(frozen) >= 4
        assert all(torch.equal(old[name], new[name]) for name in frozen)
        assert any(not torch.equal(old[name], new[name]) for name in old)
        assert "frozen: running statistics, scale and shift of" in (run.path / "run.log").read_text()


def three_classes(settings):
    from robust_edge.data import Dataset, load_dataset
    from robust_edge.data.settings import DataConfig

    digits = load_dataset(DataConfig(limit_train=200, limit_test=60))
    parts = [split.take(torch.nonzero(split.labels < 3).flatten()) for split in (digits.train, digits.test)]
    return Dataset("three", ("zero", "one", "two"), *parts)


OTHER = {"data.dataset": f"{__name__}:three_classes"}


@pytest.mark.parametrize("kind", ["imported", "trained"])
def test_a_new_head_for_other_classes(tiny, imported, sparse_run, tmp_path, kind):
    source, head = (imported, "network.10.") if kind == "imported" else (sparse_run, "network.11.")
    flags = {**OTHER, "init": str(source.path), "new_head": True, "pruning.keep_mask": True, "training.epochs": 0}
    run = compressed(tiny(flags), tmp_path / "run")
    old, new = (safetensors.torch.load_file(r.path / "checkpoint.safetensors") for r in (source, run))
    for name in old:
        assert torch.equal(old[name], new[name]) != name.startswith(head), name
    assert new[f"{head}weight"].shape == (3, old[f"{head}weight"].shape[1])
    assert new[f"{head}weight"].all()
    assert run.checkpoint().model.classes == ("zero", "one", "two")
    trained = compressed(tiny({**flags, "training.epochs": 2, "attack.eps": 0.0}), tmp_path / "trained")
    assert trained.load_model()(torch.rand(2, 1, 8, 8)).shape == (2, 3)


def test_a_new_head_for_a_state_dict_of_other_classes(tiny, tmp_path):
    torch.manual_seed(3)
    state = small_cnn(17, 1).state_dict()
    torch.save(state, tmp_path / "w.pth")
    flags = {"init": str(tmp_path / "w.pth"), "pruning.keep": 1.0, "training.epochs": 0}
    with pytest.raises(InputError, match="trained for 17 classes"):
        compress(tiny(flags), tmp_path / "run")
    run = compressed(tiny({**flags, "new_head": True}), tmp_path / "run")
    found = run.load_model().network.state_dict()
    assert all(torch.equal(found[name], state[name]) for name in state if not name.startswith("11."))


def normed(num_classes, in_channels):
    layers = [nn.Conv2d(in_channels, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, num_classes)]
    layers[0] = nn.utils.parametrizations.weight_norm(layers[0])
    return nn.Sequential(*layers)


def constant(num_classes, in_channels):
    return nn.Sequential(nn.Conv2d(in_channels, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_a_pruned_run_of_weight_norm_goes_on_under_its_mask(tiny, tmp_path):
    """A filter of zeros has no direction, which weight norm would divide by."""
    flags = {"arch": f"{__name__}:normed", "pruning.keep": 0.2, "pruning.scheme": "irregular", "pruning.floor": 0.0}
    first = compressed(tiny({**flags, "training.epochs": 1}), tmp_path / "first")
    tensors = safetensors.torch.load_file(first.path / "checkpoint.safetensors")
    tensors["network.0.weight"][2] = 0
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors")
    more = {"pruning.keep_mask": True, "pruning.keep": 1.0, "awp.gamma": 0.01, "awp.warmup": 0, "training.epochs": 2}
    run = compressed(tiny({**flags, **more, "init": str(tmp_path / "w.safetensors")}), tmp_path / "run")
    after = safetensors.torch.load_file(run.path / "checkpoint.safetensors")
    for name in ("network.0.weight", "network.4.weight"):
        assert torch.equal(after[name] == 0, tensors[name] == 0)
        assert not torch.equal(after[name], tensors[name])


INTEGERS = {"training.quantize": "int8", "pruning.scheme": "block", "pruning.keep": 0.6}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"arch": "resnet18"}, "is a run of network.onnx, not of resnet18; leave `arch` out"),
        ({**OTHER}, "class 'one' of data set three is none of the 10 of `init`.*`new_head` replaces"),
        ({"init": "SPARSE", **OTHER}, "class 'one' of data set three"),
        ({"init": "HERE"}, "is not a run"),
        ({"init": "HERE/m.onnx"}, "holds a graph; make a run of it first, by robust-edge import"),
        ({"init": "DENSE", "pruning.keep_mask": True}, "no prunable weight of `init` .* is zero"),
        ({"data.mean": [0.5, 0.5], "data.std": [1.0]}, "data.mean has 2 values, the images have 1 channels"),
        ({"data.dataset": f"{__name__}:wide"}, r"takes images of 1x8x8, the data set has 1x8x12; set data\.resize"),
        ({**INTEGERS}, "training.quantize int8 cannot follow the weights .*: they belong to no Conv2d or Linear"),
        ({"init": None, "training.epochs": 0}, r"training\.epochs must be at least 1 where `init`"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_is_one_line_before_anything_is_written(
    tiny, imported, sparse_run, benign_run, tmp_path, flags, says
):
    places = {"SPARSE": str(sparse_run.path), "DENSE": str(benign_run.path)}
    init = flags.get("init", str(imported.path))
    init = init and places.get(init, init.replace("HERE", str(tmp_path)))
    with pytest.raises(InputError, match=says) as caught:
        compress(tiny({**flags, "init": init}), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def wide(settings):
    from robust_edge.data import Dataset, Split

    images = torch.randint(0, 255, (20, 1, 8, 12), dtype=torch.uint8)
    split = Split(images, torch.arange(20) % 10)
    return Dataset("wide", tuple("0123456789"), split, split)


def test_a_network_without_the_part_that_is_asked_for(tiny, tmp_path):
    torch.save(constant(10, 1).state_dict(), tmp_path / "w.pth")
    flags = {"arch": f"{__name__}:constant", "init": str(tmp_path / "w.pth")}
    with pytest.raises(InputError, match="has no batch norm with running statistics"):
        compress(tiny({**flags, "training.freeze_batchnorm": True}), tmp_path / "run")
    with pytest.raises(InputError, match=r"the classifier of model .* cannot be found for `new_head`"):
        compress(tiny({**flags, "new_head": True}), tmp_path / "run")


@pytest.mark.parametrize("place", ["checkpoint.json", "config.yaml"])
def test_code_that_only_the_initial_run_names_is_not_imported(tiny, sparse_run, tmp_path, monkeypatch, place):
    path = shutil.copytree(sparse_run.path, tmp_path / "first")
    (tmp_path / "evil_initial.py").write_text("from pathlib import Path\nPath(__file__).with_name('mark').touch()\n")
    file = path / place
    file.write_text(file.read_text().replace("small_cnn", "evil_initial:build"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="runs code: it names 'evil_initial:build'"):
        compress(tiny({"init": str(path)}), tmp_path / "run")
    assert not (tmp_path / "mark").exists()


def test_a_saved_state_names_no_other_network_than_the_config(tiny, tmp_path):
    def die(done, total, text):
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        compress(tiny(), tmp_path / "run", progress=die)
    state = torch.load(tmp_path / "run" / "resume.pt", weights_only=True)
    state["spec"]["arch"] = "evil_initial:build"
    torch.save(state, tmp_path / "run" / "resume.pt")
    with pytest.raises(InputError, match="is of a evil_initial:build, the run of a small_cnn"):
        resume(tmp_path / "run")


def test_the_run_itself_is_no_start(tiny, sparse_run, tmp_path):
    path = shutil.copytree(sparse_run.path, tmp_path / "run")
    with pytest.raises(InputError, match="is the run to be written"):
        compress(tiny({"init": str(path)}), path, overwrite=True)
    assert open_run(path).finished


def test_the_command_line_names_its_options(cli, refused, imported, tiny_flags, tmp_path):
    line = refused("compress", *tiny_flags, "--set", "training.epochs=0", "-o", tmp_path / "run")
    assert "training.epochs (--epochs) must be at least 1 where --init names no network" in line
    line = refused("compress", *tiny_flags, "--keep-mask", "-o", tmp_path / "run")
    assert "pruning.keep_mask (--keep-mask)" in line
    options = ("--init", imported.path, "--keep-mask", "--freeze-batchnorm", "--eps", 0, "--set", "training.epochs=1")
    result = cli("compress", *tiny_flags, *options, "-q", "-o", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert open_run(tmp_path / "run").config.pruning.keep == 1
