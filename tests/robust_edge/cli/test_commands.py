"""The other commands: what they refuse, and that a mistake is one line."""

import functools
import json

import pytest

from robust_edge.reporting import watch as watching
from robust_edge.run.directory import open_run


@pytest.fixture
def run(sparse_run, tmp_path):
    """A copy that may be written into."""
    path = tmp_path / "run"
    path.mkdir()
    for item in sparse_run.path.iterdir():
        if item.is_file():
            (path / item.name).write_bytes(item.read_bytes())
    return open_run(path)


def test_evaluate_prints_and_writes_the_same_figures(cli, run, tmp_path):
    out = tmp_path / "record.json"
    result = cli("evaluate", run.path, "--eps", "8/255", "--steps", 3, "--limit", 20, "--json", "-q", "-o", out)
    assert result.exit_code == 0, result.output
    shown, written = json.loads(result.stdout), json.loads(out.read_text())
    assert shown == written
    assert shown["result"]["threat"]["eps"] == 8 / 255
    assert shown["result"]["clean"]["images"] == 20


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--attack", "apgd"], "'--attack'"),
        (["--eps", "8/0"], "'8/0' is not a radius"),
        (["--eps", "nan"], "not above 0"),
        (["--limit", "0"], "'--limit'"),
        (["--steps", "0"], "'--steps'"),
        (["--seed", "99999999999999999999"], "'--seed'"),
        (["--device", "cuda:99"], "cannot be used here"),
        (["-o", "/nowhere/at/all.json", "--limit", "1", "--steps", "1"], "/nowhere/at"),
    ],
    ids=" ".join,
)
def test_evaluate_refuses(refused, run, arguments, says):
    assert says in refused("evaluate", run.path, "-q", *arguments)
    assert not list(run.path.glob("evaluations/*"))


@pytest.mark.parametrize("command", [["evaluate"], ["export", "--target", "x86-cpu", "-o", "bundle"]])
def test_a_folder_that_is_no_run(refused, tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "is not a run" in refused(*command, tmp_path)
    assert "is not a run" in refused(*command, tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())


def test_weights_that_were_exchanged(refused, run, benign_run):
    (run.path / "checkpoint.safetensors").write_bytes((benign_run.path / "checkpoint.safetensors").read_bytes())
    assert "not the file that checkpoint.json describes" in refused("evaluate", run.path)


def test_export_of_an_unknown_target_writes_nothing(refused, run, tmp_path):
    line = refused("export", run.path, "--target", "x86-cpus", "-o", tmp_path / "bundle")
    assert "did you mean 'x86-cpu'" in line
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "arguments", [["--golden", "0"], ["--eps", "2"], ["--steps", "0"], ["--seed", "99999999999999999999"]], ids=" ".join
)
def test_export_refuses(refused, run, tmp_path, arguments):
    refused("export", run.path, "--target", "x86-cpu", *arguments, "-o", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--target jetson-gpu --jetpack 4.6 --opset 18", "nearest: --opset 13"),
        ("--target jetson-gpu --jetpack 4.6 --precision int8", "--precision fp16"),
        ("--target jetson-gpu --jetpack 3.3", "unknown JetPack"),
        ("--target nvidia-v100 --precision bf16", "needs Ampere"),
        ("--target x86-cpu --jetpack 5.1", "leave --jetpack out"),
        ("--target x86-cpu-csr --opset 18", "leave --opset out"),
        ("--target x86-cpu-csr --csr-threshold 2", "outside [0, 1]"),
        ("--target x86-cpu --csr-threshold 0.2", "leave --csr-threshold out"),
        ("--target x86-cpu-csr --batch 4", "leave --batch out"),
        ("--target x86-cpu-int8 --opset 12", "nearest: --opset 13"),
        ("--target x86-cpu --batch 0", "--batch"),
    ],
)
def test_export_refuses_what_the_target_cannot_do(refused, run, tmp_path, arguments, says):
    assert says in refused("export", run.path, *arguments.split(), "-o", tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_export_writes_an_archive_and_keeps_an_older_one(cli, refused, run, tmp_path):
    pytest.importorskip("onnxruntime", reason="export runs the artifact on onnxruntime")
    options = ["--target", "jetson-cpu", "--jetpack", "4.6", "--golden", 20, "--archive", "--batch", 257, "--eps", 1]
    made = cli("export", run.path, *options, "--json", "-o", tmp_path / "bundle")
    assert made.exit_code == 0, made.output
    assert "verify cannot decide with 20 stored images, it needs 50; raise --golden" in made.stderr
    assert "verify cannot pass this bundle: under attack with eps 1 the checkpoint is right on 0.0%" in made.stderr
    assert "one image costs as much as 257; a --batch of at most 256 is verified faster" in made.stderr
    value = json.loads(made.stdout)
    assert (value["manifest"]["target"], value["manifest"]["artifact"]["opset"]) == ("arm-cpu-jp4.6", 13)
    assert value["archive"] == str(tmp_path / "bundle.tar")
    assert (tmp_path / "bundle.tar").stat().st_size > value["manifest"]["size"]["artifact"]
    assert "bundle.tar exists" in refused("export", run.path, *options, "-o", tmp_path / "bundle")


def test_verify_against_another_run_is_a_usage_error(cli, refused, run, benign_run, tmp_path):
    pytest.importorskip("onnxruntime", reason="export and verify run the artifact on onnxruntime")
    bundle = tmp_path / "bundle"
    made = cli("export", run.path, "--target", "x86-cpu", "--golden", 50, "--steps", 2, "-q", "-o", bundle)
    assert made.exit_code == 0, made.output
    assert "was exported from run 'run'" in refused("verify", bundle, "--against", benign_run.path)
    line = refused("export", run.path, "--target", "x86-cpu", "-o", bundle)
    assert "pass --overwrite" in line
    both = refused("verify", bundle, "-o", tmp_path / "verdict", "--junit", tmp_path / "verdict")
    assert "choose another path for one of them" in both
    lenient = ("--max-clean-drop", 20, "--max-robust-drop", 20)
    passed = cli("verify", bundle, "--against", run.path, *lenient, "--steps", 2, "-q", "-o", tmp_path / "verdict.json")
    assert passed.exit_code == 0, passed.output
    assert json.loads((tmp_path / "verdict.json").read_text())["passed"] is True


def test_targets_are_listed(cli):
    assert "x86-cpu" in cli("targets").stdout
    listed = json.loads(cli("targets", "--json").stdout)
    assert listed["jetson-gpu-jp4.6"]["exporter"] == "torchscript"
    assert listed["jetson-gpu-jp4.6"]["refuses"]["int8"] in cli("targets").stdout
    assert all(name in cli("targets").stdout for name in listed)


def test_targets_say_what_a_call_without_a_jetpack_means(cli):
    text = cli("targets").stdout
    assert "jetson-gpu-jp6.2 (--target jetson-gpu --jetpack 6.2, --target jetson-gpu):" in text
    assert "jetson-gpu-jp5.1 (--target jetson-gpu --jetpack 5.1):" in text
    assert "arm-cpu-jp4.6 (--target arm-cpu --jetpack 4.6, --target jetson-cpu --jetpack 4.6):" in text


@pytest.mark.parametrize("command", [["no-such"], ["evaluate"], ["export"], ["--no-such-option"]], ids=" ".join)
def test_usage_errors_are_one_line(refused, command):
    refused(*command)


@pytest.mark.parametrize("command", ["demo", "compress", "evaluate", "export", "verify", "bench", "report", "targets"])
def test_help_shows_examples(cli, command):
    result = cli(command, "--help")
    assert result.exit_code == 0
    assert f"robust-edge {command}" in result.stdout.partition("Examples:")[2]


def test_a_watched_page_reloads_itself_until_the_run_is_finished(cli, run, tmp_path, monkeypatch):
    page, refresh, shown = tmp_path / "page.html", '<meta http-equiv="refresh" content="5">', []
    checkpoint = (run.path / "checkpoint.json").read_bytes()
    (run.path / "checkpoint.json").unlink()

    def pause(seconds):
        shown.append(page.read_text())
        (run.path / "checkpoint.json").write_bytes(checkpoint)  # the training ends

    monkeypatch.setattr(watching, "watch", functools.partial(watching.watch, pause=pause))
    result = cli("report", "--watch", run.path, "-o", page)
    assert result.exit_code == 0, result.output
    assert "Ctrl-C ends this command" in result.stderr
    assert f"wrote {page}: run 3/3 epochs" in result.stderr
    assert [refresh in text for text in shown] == [True]
    assert refresh not in page.read_text()
