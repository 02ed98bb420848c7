"""`robust-edge compress` as its users meet it: every mistake is one line, and nothing is left behind."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robust_edge.config.settings import to_yaml
from robust_edge.run.directory import open_run
from robust_edge.training.compress import compress


@pytest.fixture
def out(tmp_path):
    return tmp_path / "new" / "run"


@pytest.fixture
def tree(tmp_path):
    """A folder data set of twelve images."""
    root = tmp_path / "images"
    for i in range(12):
        path = root / ("train" if i < 8 else "test") / ("cat", "dog")[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return root


def test_a_run_ends_with_one_line_of_result(cli, tiny_flags, sparse_run, out):
    result = cli("compress", *tiny_flags, "-q", "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == 1
    assert "9373 of 93728 prunable weights kept (10.00%)" in result.stdout
    assert (out / "checkpoint.safetensors").read_bytes() == (sparse_run.path / "checkpoint.safetensors").read_bytes()


def test_one_attack_step_without_held_out_images_is_noted_at_the_start(cli, tiny_flags, out):
    result = cli("compress", *tiny_flags, "--set", "attack.steps=1", "--epochs", 1, "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("note: training by one attack step can collapse")
    assert "training by one attack step can collapse" in (out / "run.log").read_text()


def test_json_is_the_checkpoint_s_record(cli, tiny_flags, out):
    result = cli("compress", *tiny_flags, "--epochs", 1, "--json", "-o", out)
    assert json.loads(result.stdout) == json.loads((out / "checkpoint.json").read_text())


def test_flags_reach_the_config_and_set_wins_over_them(cli, tiny_flags, out):
    flags = ("--epochs", 9, "--keep", 0.25, "--eps", "8/255", "--seed", 5)
    result = cli("compress", *flags, *tiny_flags, "--set", "training.epochs=1", "-q", "-o", out)
    assert result.exit_code == 0, result.output
    config = open_run(out).config
    assert (config.pruning.keep, config.attack.eps, config.seed) == (0.25, 8 / 255, 5)
    assert config.training.epochs == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--dataset", "digit"], "did you mean 'digits'"),
        (["--dataset", "no_such_module:build"], "cannot be imported"),
        (["--arch", "resnet35"], "did you mean 'resnet34'"),
        (["--scheme", "irregula"], "did you mean 'irregular'"),
        (["--scheme", "json:dumps"], "must be a class derived from"),
        (["--scope", "everywhere"], "unknown --scope 'everywhere'"),
        (["--scheme", "nm", "--scope", "layer"], "pruning.scope (--scope) does not apply to scheme nm"),
        (["--loss", "trade"], "unknown --loss 'trade'; did you mean 'trades'"),
        (["--precision", "fp16"], "unknown --precision 'fp16'"),
        (["--preset", "thesi"], "did you mean 'thesis'"),
        (["--keep", "0"], "'--keep'"),
        (["--keep", "1.5"], "1.5"),
        (["--keep", "ten"], "'ten' is not a fraction; 10% of the weights is 0.1"),
        (["--keep", "0.00001"], "raise pruning.keep (--keep)"),
        (["--eps", "8/0"], "'8/0' is not a radius"),
        (["--eps", "-1"], "outside [0, 1]"),
        (["--eps", "nan"], "outside [0, 1]"),
        (["--steps", "0"], "'--steps'"),
        (["--epochs", "-1"], "'--epochs'"),
        (["--seed", "-1"], "'--seed'"),
        (["--seed", "99999999999999999999"], "'--seed'"),
        (["--device", "cuda:99"], "device cuda:99 cannot be used here"),
        (["--device", "meta"], "device meta cannot be used here"),
        (["--set", "training.lr"], "NAME=VALUE"),
        (["--set", "training.lrr=1"], "did you mean"),
        (["--set", "attack.eps=.nan"], "attack.eps"),
        (["--set", "attack.eps_schedule=[0.1]"], "has 1 values, it needs 36"),
        (["--config", "/nowhere.yaml"], "is not a file"),
        (["--config", "/dev/zero"], "is not a file"),
        (["--config", "/proc/self/environ"], "is not a regular file"),
        (["--init", "/nowhere.pth"], "is not a file"),
        (["--dataset", "folder"], "needs data.dir (--data-dir)"),
        (["--dataset", "cifar10"], "needs data.dir (--data-dir)"),
        (["--dataset", "folder", "--data-dir", "/nowhere"], "is not a folder"),
        (["--resume", "--overwrite"], "pass one of them"),
        (["--no-such-option"], "No such option"),
        (["surplus"], "unexpected extra argument"),
    ],
    ids=" ".join,
)
def test_every_mistake_is_one_line_and_nothing_is_written(refused, out, arguments, says):
    assert says in refused("compress", *arguments, "-o", out)
    assert not out.parent.exists()


def test_a_pipe_as_config_is_not_waited_for(refused, out, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "is not a file" in refused("compress", "--config", tmp_path / "pipe", "-o", out)


def test_no_output_directory(refused):
    assert "'-o'" in refused("compress")


def damage(tree, kind):
    cat = sorted((tree / "train" / "cat").iterdir())
    if kind == "no test":
        (tree / "test").rename(tree / "elsewhere")
    elif kind == "one class":
        for split in ("train", "test"):
            for path in (tree / split / "dog").iterdir():
                path.unlink()
            (tree / split / "dog").rmdir()
    elif kind == "sizes":
        Image.fromarray(np.zeros((9, 8, 3), np.uint8)).save(cat[1])
    elif kind == "broken":
        cat[1].write_bytes(b"\x89PNG but no more")
    elif kind == "truncated":
        cat[1].write_bytes(cat[1].read_bytes()[:-60])


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("no test", "test is missing"),
        ("one class", "at least 2"),
        ("sizes", "9x8 (height x width)"),
        ("broken", "cannot be read as an image"),
        ("truncated", "cannot be read as an image"),
    ],
)
def test_a_folder_that_cannot_be_used(refused, tree, out, kind, says):
    damage(tree, kind)
    line = refused("compress", "--dataset", "folder", "--data-dir", tree, "-o", out)
    assert says in line
    assert str(tree) in line
    assert not out.parent.exists()


def test_a_good_folder_is_trained_on(cli, tree, out):
    arguments = ("--dataset", "folder", "--data-dir", tree, "--epochs", 1, "--steps", 1, "--threads", 1)
    assert cli("compress", *arguments, "-q", "-o", out).exit_code == 0
    assert open_run(out).checkpoint().model.classes == ("cat", "dog")


@pytest.fixture
def broken_off(tiny, tmp_path):
    class Stop(BaseException):
        pass

    def stop(done, total, text):
        if done == 6:
            raise Stop

    with pytest.raises(Stop):
        compress(tiny(), tmp_path / "half", progress=stop)
    return tmp_path / "half"


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_exists_is_kept_unless_told_otherwise(refused, tiny_flags, sparse_run, tmp_path):
    before = snapshot(sparse_run.path)
    assert "pass --overwrite" in refused("compress", *tiny_flags, "-o", sparse_run.path)
    assert snapshot(sparse_run.path) == before
    (tmp_path / "mine.txt").write_text("mine")
    assert "is not a run" in refused("compress", *tiny_flags, "--overwrite", "-o", tmp_path)
    assert "is a file" in refused("compress", *tiny_flags, "--overwrite", "-o", tmp_path / "mine.txt")
    assert "which is a file" in refused("compress", *tiny_flags, "-o", tmp_path / "mine.txt" / "run")
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_resume_refuses_other_settings_and_takes_the_same(cli, refused, tiny_flags, tiny, broken_off, tmp_path):
    (tmp_path / "all.yaml").write_text(to_yaml(dataclasses.replace(tiny(), arch=None)))  # as before the start
    line = refused("compress", *tiny_flags, "--resume", "--keep", "0.2", "-o", broken_off)
    assert "pruning.keep (--keep): 0.1, not 0.2" in line
    for arguments in (tiny_flags, [], ["--config", tmp_path / "all.yaml"]):  # the first one ends the run
        assert cli("compress", *arguments, "--resume", "-q", "-o", broken_off).exit_code == 0
        assert open_run(broken_off).finished


def test_a_start_from_weights_is_remembered_wherever_one_stands(cli, tiny_flags, sparse_run, out, monkeypatch):
    monkeypatch.chdir(sparse_run.path)
    arguments = (*tiny_flags, "--epochs", 1, "--init", "checkpoint.safetensors")
    assert cli("compress", *arguments, "-q", "-o", out).exit_code == 0
    assert open_run(out).config.init == str(sparse_run.path / "checkpoint.safetensors")


def test_resume_starts_a_run_that_is_not_there(cli, tiny_flags, out):
    assert cli("compress", *tiny_flags, "--set", "training.epochs=1", "--resume", "-q", "-o", out).exit_code == 0
    assert open_run(out).finished


@pytest.mark.parametrize("command", [["evaluate"], ["export", "--target", "x86-cpu", "-o", "bundle"]])
def test_other_commands_say_how_to_finish_an_unfinished_run(refused, broken_off, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    line = refused(*command, broken_off)
    assert f"robust-edge compress --resume -o {broken_off}" in line
    assert not (tmp_path / "bundle").exists()


def test_a_damaged_resume_file_is_one_line(refused, broken_off):
    (broken_off / "resume.pt").write_bytes(b"noise")
    assert "--overwrite" in refused("compress", "--resume", "-o", broken_off)


def test_a_diverging_run_is_one_line(refused, tiny_flags, out):
    arguments = ("-q", "--set", "training.lr=1e20", "-o", out)
    line = refused("compress", *tiny_flags, *arguments, code=1)
    assert "training diverged" in line
    assert "training.lr" in line


def until(holds, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def only_line(stderr):
    """The one line there is; click ends the line of the terminal's own ^C before it."""
    (line,) = [line for line in stderr.splitlines() if line]
    return line


def test_ctrl_c_in_the_middle_is_one_line_and_the_run_goes_on_later(start, cli, tiny_flags, tmp_path):
    out = tmp_path / "run"
    process = start("compress", *tiny_flags, "--set", "training.epochs=500", "-q", "-o", out)
    until(lambda: (out / "resume.pt").is_file() or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stdout == ""
    assert only_line(stderr).startswith("error: interrupted;")
    assert "--resume" in stderr
    assert not list(tmp_path.rglob("*.tmp"))
    assert not (out / "checkpoint.json").exists()
    config = (out / "config.yaml").read_text()
    (out / "config.yaml").write_text(config.replace("epochs: 500", f"epochs: {len(open_run(out).metrics()) + 1}"))
    assert cli("compress", "--resume", "-q", "-o", out).exit_code == 0


def test_sigterm_in_the_middle_is_one_line_and_the_run_goes_on_later(start, cli, tiny_flags, tmp_path):
    out = tmp_path / "run"
    process = start("compress", *tiny_flags, "--set", "training.epochs=500", "-q", "-o", out)
    until(lambda: (out / "resume.pt").is_file() or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == 143
    assert stdout == ""
    assert only_line(stderr).startswith("error: terminated;")
    assert not list(tmp_path.rglob("*.tmp"))
    done = len(open_run(out).metrics())
    assert done >= 1
    saved = open_run(out).read_unfinished()
    assert saved["epoch"] == done
    assert 1 <= saved["part"]["batches"] < 4  # the batches of an epoch
    (out / "config.yaml").write_text((out / "config.yaml").read_text().replace("epochs: 500", f"epochs: {done + 1}"))
    assert cli("compress", "--resume", "-q", "-o", out).exit_code == 0
    assert [row.epoch for row in open_run(out).metrics()] == list(range(1, done + 2))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for what the process is doing")
@pytest.mark.parametrize("library", ["libtorch_cpu", "_safetensors_rust"])
def test_ctrl_c_while_starting_leaves_nothing(start, tiny_flags, tmp_path, library):
    """The signal comes while the heavy imports are under way."""
    process = start("compress", *tiny_flags, "--set", "training.epochs=500", "-q", "-o", tmp_path / "run")
    maps = Path(f"/proc/{process.pid}/maps")
    until(lambda: library in maps.read_text())
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130, stderr
    assert only_line(stderr).startswith("error: interrupted;")
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB: room for the first files of a run, not for its state."""
    if sys.platform != "linux":
        pytest.skip("needs Linux, to mount a small tmpfs")
    path = tmp_path / "disk"
    path.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("needs the command mount")
    if done.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_is_one_line_and_leaves_whole_files(refused, tiny_flags, small_disk):
    out = small_disk / "run"
    line = refused("compress", *tiny_flags, "-q", "-o", out)
    assert "no space left on the disk" in line
    assert not [path for path in small_disk.rglob("*") if path.name.endswith(".tmp")]
    assert not open_run(out).finished
    for path in out.iterdir():
        assert path.stat().st_size > 0, path


def test_a_disk_that_is_full_from_the_start(refused, tiny_flags, small_disk):
    (small_disk / "filler").write_bytes(b"x" * (1 << 20))
    assert "no space left on the disk" in refused("compress", *tiny_flags, "-q", "-o", small_disk / "run")
    assert not [path for path in small_disk.rglob("*") if path.is_file() and path.name != "filler"]


def test_a_folder_that_may_not_be_written(refused, tiny_flags, tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, "Permission denied", str(tmp_path / "run"))

    monkeypatch.setattr("pathlib.Path.mkdir", denied)
    assert "no permission to use" in refused("compress", *tiny_flags, "-q", "-o", tmp_path / "run")


def test_tensorboard_that_is_missing_names_its_extra(refused, tiny_flags, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    line = refused("compress", *tiny_flags, "--tensorboard", "-q", "-o", tmp_path / "run", code=3)
    assert "pip install 'robust-edge[tensorboard]'" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["torch", "safetensors", "sklearn"])
def test_a_missing_extra_names_the_pip_command(missing, tmp_path):
    script = f"import sys; sys.modules[{missing!r}] = None; from robust_edge.cli import main; main()"
    command = [sys.executable, "-c", script, "compress", "--epochs", "2", "-o", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "pip install 'robust-edge[train]'" in line
    assert not list(tmp_path.iterdir())
