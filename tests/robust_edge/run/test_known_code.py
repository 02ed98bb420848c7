"""A run from elsewhere names code, and none of it runs unless this user has chosen it or allows it now."""

import json
import subprocess
import sys

import pytest

from robust_edge.config.settings import from_plain, to_plain
from robust_edge.run.directory import CHECKPOINT, CONFIG, create_run, open_run
from robust_edge_runtimes.core.errors import InputError

CODE = """
from pathlib import Path
Path(__file__).with_name("was-run").write_text("")
from torch import nn
import torchvision

def network(num_classes, in_channels):
    return nn.Sequential(nn.Conv2d(in_channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""
COMMANDS = {
    "evaluate": ("evaluate", "{run}", "--steps", 1, "--limit", 5),
    "transfer": (
        "transfer",
        "--source",
        "{run}",
        "--target",
        "{run}",
        "--steps",
        1,
        "--limit",
        5,
        "-o",
        "{folder}/t.json",
    ),
    "export": ("export", "{run}", "--target", "x86-cpu", "--golden", 5, "-o", "{folder}/bundle"),
    "report": ("report", "{run}", "-o", "{folder}/report.html"),
    "check": ("check", "{run}", "--target", "x86-cpu"),
    "resume": ("compress", "--resume", "-o", "{run}"),
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user who has named no code yet, in a folder with a module of their own."""
    (tmp_path / "their_code.py").write_text(CODE)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("their_code", None)


@pytest.fixture
def foreign(home, sparse_run):
    """A finished run that names the module, as if someone else had made it."""
    path = home / "run"
    path.mkdir()
    for file in sparse_run.path.iterdir():
        if file.is_file():
            (path / file.name).write_bytes(file.read_bytes())
    config = (path / CONFIG).read_text()
    assert "arch: small_cnn" in config
    (path / CONFIG).write_text(config.replace("arch: small_cnn", "arch: their_code:network"))
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_imports_what_a_foreign_run_names(home, foreign, refused, name):
    words = [str(word).format(run=foreign, folder=home) for word in COMMANDS[name]]
    line = refused(*words)
    assert f"{foreign} runs code: it names 'their_code:network' (in {home}/their_code.py)" in line
    assert "--allow-code" in line
    assert not (home / "was-run").exists()


@pytest.mark.parametrize("section", ["data.dataset", "pruning.scheme"])
def test_data_and_scheme_are_not_imported_either(home, foreign, section):
    text, key = (foreign / CONFIG).read_text().replace("their_code:network", "small_cnn"), section.partition(".")[2]
    lines = [f"  {key}: their_code:network" if line.startswith(f"  {key}: ") else line for line in text.splitlines()]
    (foreign / CONFIG).write_text("\n".join(lines))
    with pytest.raises(InputError, match="it names 'their_code:network'"):
        open_run(foreign)
    assert not (home / "was-run").exists()


def test_the_architecture_of_the_checkpoint_is_not_imported(home, foreign):
    text = (foreign / CONFIG).read_text()
    (foreign / CONFIG).write_text(text.replace("their_code:network", "small_cnn"))
    checkpoint = json.loads((foreign / CHECKPOINT).read_text())
    for name in ("their_code:network", "os:system", "__main__:main"):
        checkpoint["model"]["arch"] = name
        (foreign / CHECKPOINT).write_text(json.dumps(checkpoint))
        with pytest.raises(InputError, match=f"it names '{name}'"):
            open_run(foreign).load_model()
    assert not (home / "was-run").exists()


@pytest.mark.parametrize("name", ["os:system", "subprocess:call", "zipfile:main"])
def test_what_the_machine_has_is_code_from_elsewhere_too(home, foreign, name):
    config = (foreign / CONFIG).read_text()
    (foreign / CONFIG).write_text(config.replace("their_code:network", name))
    with pytest.raises(InputError, match=f"it names '{name}'"):
        open_run(foreign)


def test_what_another_module_defines_is_not_called_even_if_allowed(home, foreign):
    (home / "their_code.py").write_text("from os import system as network\nfrom shutil import rmtree")
    for name, owner in (("network", "posix|nt"), ("rmtree", "shutil")):
        checkpoint = json.loads((foreign / CHECKPOINT).read_text())
        checkpoint["model"]["arch"] = f"their_code:{name}"
        (foreign / CHECKPOINT).write_text(json.dumps(checkpoint))
        with pytest.raises(InputError, match=f"is not defined in that package but in ({owner})"):
            open_run(foreign, allow_code=True).load_model()


def named(home, monkeypatch):
    """Make a run that names the module, without training."""
    config = from_plain({**to_plain(from_plain({})), "arch": "their_code:network"})
    return create_run(home / "mine", config, overwrite=True)


def test_code_that_this_user_has_chosen_is_known_in_all_runs(home, foreign, monkeypatch):
    named(home, monkeypatch)
    assert open_run(foreign).config.arch == "their_code:network"
    copy = home / "elsewhere"
    copy.mkdir()
    (copy / "their_code.py").write_text(CODE)
    monkeypatch.chdir(copy)  # another module of the same name, found first
    with pytest.raises(InputError, match=r"elsewhere/their_code\.py"):
        open_run(foreign)


def test_a_damaged_or_unwritable_memory_is_no_memory(home, foreign, monkeypatch):
    named(home, monkeypatch)
    (memory,) = (home / "state").rglob("*.jsonl")
    memory.write_bytes(b"\xff{\n[1]\nnull\n" + memory.read_bytes())
    assert open_run(foreign)
    memory.write_bytes(b"\0")
    with pytest.raises(InputError, match="set `allow_code`"):
        open_run(foreign)
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "their_code.py"))
    named(home, monkeypatch)
    with pytest.raises(InputError, match="set `allow_code`"):
        open_run(foreign)


def test_the_flag_holds_for_one_command(foreign, cli):
    words = ("compress", "--resume", "-q", "-o", foreign)
    assert "--allow-code" in cli(*words).output
    assert cli(*words, "--allow-code").exit_code == 0
    assert "--allow-code" in cli(*words).output


def test_a_module_may_import_torchvision_before_anything_else_does(home):
    """Beside a CPU-only torch as well, where the import fails by itself."""
    code = "from robust_edge.plugins import load; print(load('model', 'their_code:network', {}).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["network"], done.stderr
