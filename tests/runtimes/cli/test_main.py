from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from robust_edge_runtimes import __version__
from robust_edge_runtimes.cli.main import main
from robust_edge_runtimes.core import files

pytest.importorskip("onnxruntime", reason="the bundles of these tests run on onnxruntime")


def device(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="robust-edge-device")


def one_line(result):
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr


@pytest.fixture
def other(write_bundle, linear, make_golden, forge, tmp_path):
    """The bundle with another network in it, every hash made to agree."""
    rolled = type(linear)(np.roll(linear.weight, 1, axis=0), linear.bias)
    folder = write_bundle(tmp_path / "other")
    (folder / "model.onnx").write_bytes(rolled.program().SerializeToString())
    return forge(folder)


def test_predict_names_class_and_probability(sealed, golden, tmp_path):
    paths = [tmp_path / f"{k}.npy" for k in range(3)]
    for k, path in enumerate(paths):
        np.save(path, golden.clean[k])
    result = device("predict", sealed, *paths, "--json")
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    for k, row in enumerate(rows):
        logits = golden.clean_logits[k].astype(np.float64)
        p = np.exp(logits) / np.exp(logits).sum()
        assert row["image"] == str(paths[k])
        assert row["label"] == ("north", "east", "south", "west")[k]
        assert row["probability"] == pytest.approx(p.max(), rel=1e-4)
    text = device("predict", sealed, *paths).stdout.splitlines()
    assert [line.split("  ")[:2] for line in text] == [[row["image"], row["label"]] for row in rows]


def test_predict_takes_names_that_are_not_text(sealed, golden, tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff.npy"
    with open(path, "wb") as file:  # noqa: PTH123 - the name is bytes
        np.save(file, golden.clean[0])
    program = "from robust_edge_runtimes.cli.main import main; main()"
    command = [sys.executable, "-c", program, "predict", str(sealed), path]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"north" in done.stdout


def test_predict_refuses_images_before_it_answers(sealed, tmp_path):
    np.save(tmp_path / "good.npy", np.zeros((1, 4, 4), np.float32))
    np.save(tmp_path / "wide.npy", np.zeros((1, 4, 5), np.float32))
    np.save(tmp_path / "bright.npy", np.full((1, 4, 4), 2, np.float32))
    for bad in ("wide.npy", "bright.npy", "absent.npy"):
        result = device("predict", sealed, tmp_path / "good.npy", tmp_path / bad)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert bad in one_line(result)


def test_predict_on_an_artifact_without_numbers_exits_4(write_bundle, linear, forge, tmp_path):
    folder = write_bundle(tmp_path / "b")
    broken = type(linear)(linear.weight, np.full(4, np.nan, np.float32))
    (folder / "model.onnx").write_bytes(broken.program().SerializeToString())
    np.save(tmp_path / "x.npy", np.zeros((1, 4, 4), np.float32))
    result = device("predict", forge(folder), tmp_path / "x.npy", "--json")
    assert result.exit_code == 4
    assert "NaN" in one_line(result)


def test_verify_passes_with_0(sealed, opened, tmp_path):
    lenient = ("--max-clean-drop", "7", "--max-robust-drop", "7")
    result = device("verify", sealed, *lenient, "-o", tmp_path / "verify.json", "--json")
    assert result.exit_code == 0, result.stderr
    verdict = json.loads(result.stdout)
    assert verdict == json.loads((tmp_path / "verify.json").read_text())
    assert verdict["passed"] is True
    assert verdict["reasons"] == []
    assert verdict["modes"][0]["mode"] == "replay"
    assert verdict["modes"][0]["artifact_clean"] == opened.manifest.expected.clean_accuracy
    assert verdict["modes"][0]["artifact_robust"] == opened.manifest.expected.robust_accuracy
    assert device("verify", sealed, *lenient).stdout.splitlines()[-1].startswith("PASS")


def test_verify_exits_5_where_the_images_cannot_decide(sealed, tmp_path):
    """Of 60 images none is lost: too few to distinguish a loss of one point from none."""
    result = device("verify", sealed, "-o", tmp_path / "verify.json")
    assert result.exit_code == 5
    assert result.stdout.splitlines()[-1].startswith("UNDECIDED")
    assert result.stdout.count("about 410 images would decide") == 2
    written = json.loads((tmp_path / "verify.json").read_text())
    assert (written["outcome"], written["passed"], written["reasons"]) == ("undecided", False, [])


def test_verify_fails_with_1_on_another_network(other, tmp_path):
    result = device("verify", other, "-o", tmp_path / "verify.json")
    assert result.exit_code == 1
    assert result.stderr == ""
    assert result.stdout.splitlines()[-1].startswith("FAIL")
    written = json.loads((tmp_path / "verify.json").read_text())
    assert written["passed"] is False
    assert {reason.split(":")[0] for reason in written["reasons"]} >= {"clean_drop", "not_the_checkpoint"}


def test_a_limit_that_decides_nothing_is_refused(sealed):
    result = device("verify", sealed, "--limit", 49)
    assert result.exit_code == 2
    assert "49 images cannot decide a verdict; give --limit 50 or more" in one_line(result)
    assert "too_few_images" not in device("verify", sealed, "--limit", 50).stdout


def test_the_budget_that_an_undecided_verdict_names_passes(sealed):
    undecided = device("verify", sealed, "--seed", 1)
    options = re.findall(r"`(--max-\w+-drop) ([\d.]+)`", undecided.stdout)
    assert [name for name, _ in options] == ["--max-clean-drop", "--max-robust-drop"]
    assert "no more than 60 are available" in undecided.stdout
    passing = [word for option in options for word in option]
    assert device("verify", sealed, "--seed", 1, *passing).exit_code == 0
    closer = [str(round(float(word) - 0.1, 1)) if word[0] != "-" else word for word in passing]
    assert device("verify", sealed, "--seed", 1, *closer).exit_code == 5


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "golden.npz", "labels.txt", "SHA256SUMS"])
@pytest.mark.parametrize("damage", ["change", "remove"])
def test_damage_exits_4(bundle, name, damage):
    data = bytearray((bundle / name).read_bytes())
    (bundle / name).unlink()
    if damage == "change":
        data[len(data) // 2] ^= 1
        (bundle / name).write_bytes(data)
    result = device("verify", bundle)
    assert result.exit_code == 4
    assert result.stdout == ""
    assert name in one_line(result) or "manifest.json" in one_line(result)


def test_a_manifest_that_points_outside_exits_4(bundle, forge):
    forge(bundle, lambda value: value["files"].update({"../outside": value["files"]["labels.txt"]}))
    result = device("verify", bundle)
    assert result.exit_code == 4
    assert "not a plain path inside the bundle" in one_line(result)


def test_a_format_without_a_runtime_exits_3(bundle, forge):
    forge(bundle, lambda value: value["artifact"].update(format="tflite"))
    assert device("verify", bundle).exit_code == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["--limit", "0"],
        ["--limit", "x"],
        ["--mode", "surrogate"],
        ["--max-clean-drop", "-1"],
        ["--max-robust-drop", "nan"],
        ["--max-clean-drop", "101"],
        ["--threads", "0"],
        ["--threads", "99999999999"],
        ["--allow", "nothing_checked"],
        ["--no-such-option"],
    ],
)
def test_bad_options_exit_2_in_one_line(sealed, arguments):
    result = device("verify", sealed, *arguments)
    assert result.exit_code == 2
    assert one_line(result).startswith("error: ")


def test_allow_names_a_flag_that_may_be_raised(other):
    loose = ["--max-clean-drop", "100", "--max-robust-drop", "100"]
    assert device("verify", other, *loose).exit_code == 1
    assert device("verify", other, *loose, "--allow", "not_the_checkpoint").exit_code == 0


def test_what_is_no_bundle_exits_4(tmp_path):
    for command in (["verify"], ["bench"]):
        result = device(*command, tmp_path / "absent")
        assert result.exit_code == 4
        assert "robust-edge export" in one_line(result)


def test_bench_prints_a_table_and_writes_every_sample(dense_sealed, sealed, tmp_path):
    result = device("bench", dense_sealed, sealed, "--seconds", "0.02", "--images", "10", "-o", tmp_path / "b.json")
    assert result.exit_code == 0, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()[2:6]] == ["dense", "dense", "bundle", "bundle"]
    assert "no bundle is dense" not in result.stderr
    written = json.loads((tmp_path / "b.json").read_text())
    assert written["baseline"] == "dense"
    for entry in written["entries"]:
        for part in entry["latencies"]:
            assert len(part["samples_ns"]) == part["n"]


def test_bench_notes_that_a_baseline_is_missing(sealed):
    result = device("bench", sealed, "--seconds", "0.01", "--images", "2", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["threads"] == 1
    assert "no bundle is dense" in result.stderr
    assert device("bench", sealed, "--seconds", "0.01", "--images", "2", "-q").stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [["--images", "0"], ["--seconds", "0"], ["--seconds", "nan"], ["--seconds", "inf"], ["--max-p90-ms", "0"]],
)
def test_bench_options_that_time_nothing_exit_2(sealed, arguments):
    result = device("bench", sealed, *arguments)
    assert result.exit_code == 2
    assert "error: " in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(("budget", "code"), [("1e-6", 1), ("100000", 0)])
def test_a_latency_budget_decides_the_exit_code(sealed, budget, code, tmp_path):
    words = ["--seconds", "0.01", "--images", "2", "--max-p90-ms", budget, "-q"]
    result = device("bench", sealed, *words, "-o", tmp_path / "b.json")
    assert result.exit_code == code
    assert result.stdout.splitlines()[-1].startswith("FAILED bundle: p90" if code else "PASS  p90")
    written = json.loads((tmp_path / "b.json").read_text())
    assert written["max_p90_ms"] == float(budget)
    assert len(written["over_budget"]) == code


def test_bench_of_another_network_exits_4(other):
    result = device("bench", other, "--seconds", "0.01", "-q")
    assert result.exit_code == 4
    assert "the timed model is not the exported one" in one_line(result)


def test_doctor_answers_for_people_and_for_programs():
    assert f"robust-edge {__version__}" in device("doctor").stdout
    found = json.loads(device("doctor", "--json").stdout)
    assert found["robust_edge"] == __version__
    assert {"onnxruntime", "PIL", "torch", "yaml", "C compiler"} <= {item["name"] for item in found["capabilities"]}
    onnx = next(item for item in found["backends"] if item["format"] == "onnx")
    assert "CPUExecutionProvider" in onnx["runs_on"]
    assert onnx["missing"] is None


def test_every_command_explains_itself():
    assert __version__ in device("--version").stdout
    for command in ("predict", "verify", "bench", "doctor"):
        result = device(command, "-h")
        assert result.exit_code == 0
        assert "Examples:" in result.stdout
        assert "--json" in result.stdout


def test_without_a_command_it_shows_the_help_and_exits_2():
    result = device()
    assert result.exit_code == 2
    assert "predict" in result.stderr + result.stdout


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_a_result_without_a_folder_is_refused_before_the_work(command, sealed, tmp_path):
    result = device(command, sealed, "-o", tmp_path / "nowhere/result.json")
    assert result.exit_code == 2
    assert "does not exist" in one_line(result)


@pytest.mark.parametrize("option", ["-o", "--junit"])
def test_a_result_takes_the_place_of_no_pipe_and_no_device(option, sealed, tmp_path):
    """Renaming a file to /dev/null would leave the machine without it."""
    os.mkfifo(tmp_path / "pipe")
    result = device("verify", sealed, option, tmp_path / "pipe")
    assert result.exit_code == 2
    assert "not a regular file" in one_line(result)
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize(
    "words", [("verify", "--json", "-q"), ("bench", "--json", "-q", "--seconds", 0.01, "--images", 2)]
)
def test_a_result_that_cannot_be_written_is_printed(words, sealed, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_json", full)
    result = device(*words, sealed, "-o", tmp_path / "result.json")
    assert result.exit_code == 2
    assert "no space left" in one_line(result)
    assert json.loads(result.stdout)
    assert list(tmp_path.iterdir()) == []


def test_two_results_want_two_files(sealed, tmp_path):
    result = device("verify", sealed, "-o", tmp_path / "verdict", "--junit", tmp_path / "verdict")
    assert result.exit_code == 2
    assert "choose another path for one of them" in one_line(result)
    assert not (tmp_path / "verdict").exists()


def test_an_archive_is_told_how_to_become_a_bundle(tmp_path):
    (tmp_path / "bundle.tar").write_bytes(b"")
    result = device("verify", tmp_path / "bundle.tar")
    assert result.exit_code == 4
    assert "tar -xf" in one_line(result)
