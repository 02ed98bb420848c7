"""predict, verify, bench, doctor and targets: their --json and every exit code, each code once as installed, too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.commands import Finished, run, run_installed

pytest.importorskip("onnxruntime", reason="the bundles of these tests run on onnxruntime")

FAST = ["--seconds", "0.02", "--images", "4"]


def answer(*words: str | Path, expect: int = 0):
    """What a command says as JSON; nothing else may stand on stdout."""
    return json.loads(run(*words, "--json", expect=expect).stdout)


def complaint(*words: str | Path, expect: int) -> str:
    """The one line of a command that gives up."""
    return _only_line(run(*words, expect=expect))


def _only_line(done: Finished) -> str:
    assert done.stdout == ""
    assert done.stderr.count("error: ") == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.fixture
def image(golden, tmp_path):
    np.save(tmp_path / "image.npy", golden.clean[0])
    return tmp_path / "image.npy"


@pytest.fixture
def damaged(bundle):
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"x")
    return bundle


@pytest.fixture
def unknown(bundle, forge):
    return forge(bundle, lambda value: value["artifact"].update(format="tflite"))


@pytest.fixture
def rolled(bundle, forge, linear):
    """Another network, every hash made to agree."""
    other = type(linear)(np.roll(linear.weight, 1, axis=0), linear.bias)
    (bundle / "model.onnx").write_bytes(other.program().SerializeToString())
    return forge(bundle)


def test_predict(sealed, image, golden):
    (row,) = answer("robust-edge-device", "predict", sealed, image)
    assert sorted(row) == ["image", "label", "probability"]
    assert row["label"] == ("north", "east", "south", "west")[golden.clean_logits[0].argmax()]


def test_predict_on_a_fixed_batch(write_bundle, image, tmp_path):
    (row,) = answer("robust-edge-device", "predict", write_bundle(tmp_path / "eight", batch=8), image)
    assert row["label"] == "north"


def test_predict_gives_up(sealed, damaged, image, tmp_path):
    assert "is not a file" in complaint("robust-edge-device", "predict", sealed, tmp_path / "absent.npy", expect=2)
    assert "model.onnx" in complaint("robust-edge-device", "predict", damaged, image, expect=4)


def test_predict_without_a_runtime(unknown, image):
    assert "tflite" in complaint("robust-edge-device", "predict", unknown, image, expect=3)


LENIENT = ["--max-clean-drop", "7", "--max-robust-drop", "20"]  # what 60 images can show
BOTH = pytest.mark.parametrize("command", ["robust-edge", "robust-edge-device"])


@BOTH
def test_verify_passes(command, sealed, tmp_path):
    out, junit = tmp_path / "verify.json", tmp_path / "verify.xml"
    words = ["--mode", "replay", "--mode", "blackbox", "--queries", "20", "-o", out, "--junit", junit, *LENIENT]
    found = answer(command, "verify", sealed, *words)
    assert (found["passed"], found["reasons"]) == (True, [])
    assert [mode["mode"] for mode in found["modes"]] == ["replay", "blackbox"]
    assert found == json.loads(out.read_text())
    assert 'failures="0"' in junit.read_text()


@BOTH
def test_verify_fails(command, rolled):
    found = answer(command, "verify", rolled, expect=1)
    assert not found["passed"]
    assert {reason.split(":")[0] for reason in found["reasons"]} >= {"clean_drop", "not_the_checkpoint"}


@BOTH
def test_verify_of_what_was_misspelt(command, sealed):
    assert "--max-robust-drop" in complaint(command, "verify", sealed, "--max-robust-drop", "nan", expect=2)
    assert "did you mean 'randomised'" in complaint(command, "verify", sealed, "--allow", "randomized", expect=2)


def test_verify_against_what_is_no_run(sealed, tmp_path):
    assert "is not a run" in complaint("robust-edge", "verify", sealed, "--against", tmp_path, expect=2)
    without = complaint("robust-edge", "verify", sealed, "--mode", "surrogate", expect=2)
    assert "give the bundle's run as --against" in without


@BOTH
def test_verify_without_a_runtime(command, unknown):
    assert "tflite" in complaint(command, "verify", unknown, expect=3)


@BOTH
def test_verify_of_a_damaged_bundle(command, damaged):
    assert "model.onnx" in complaint(command, "verify", damaged, expect=4)


@BOTH
def test_bench(command, sealed, tmp_path):
    found = answer(command, "bench", sealed, *FAST, "--max-p90-ms", "10000", "-o", tmp_path / "bench.json")
    assert found == json.loads((tmp_path / "bench.json").read_text())
    assert set(found) >= {"machine", "threads", "baseline", "entries", "harness", "max_p90_ms", "over_budget"}
    assert [entry["label"] for entry in found["entries"]][-1] == "bundle"
    assert len(found["entries"]) == (2 if command == "robust-edge" else 1)  # with the dense network it is compared to
    for entry in found["entries"]:
        assert (entry["energy"]["counter"] is None) == bool(entry["energy"]["reason"])
        assert entry["cold_start"]["load_ns"] > 0
        for part in entry["latencies"]:
            assert part["min_ns"] <= part["p50_ns"] <= part["p90_ns"] <= part["p99_ns"]
            assert (part["joules_per_image"] is None) == (entry["energy"]["counter"] is None)


@BOTH
def test_bench_over_its_budget(command, sealed):
    found = answer(command, "bench", sealed, *FAST, "--max-p90-ms", "0.000001", expect=1)
    assert [line.split(":")[0] for line in found["over_budget"]] == ["bundle"]  # not the network made for comparison


def test_bench_of_a_fixed_batch(write_bundle, tmp_path):
    found = answer("robust-edge", "bench", write_bundle(tmp_path / "eight", batch=8), *FAST)
    assert [entry["fixed_batch"] for entry in found["entries"]] == [8, 8]


def test_bench_gives_up(sealed, rolled, tmp_path):
    assert "budget" in complaint("robust-edge-device", "bench", sealed, *FAST, "--max-p90-ms", "0", expect=2)
    assert "golden" in complaint("robust-edge-device", "bench", rolled, *FAST, "-q", expect=4)
    assert "robust-edge export" in complaint("robust-edge", "bench", tmp_path / "absent", expect=4)


def test_bench_without_a_runtime(unknown):
    assert "tflite" in complaint("robust-edge-device", "bench", unknown, *FAST, "-q", expect=3)


@BOTH
def test_doctor(command):
    found = answer(command, "doctor")
    assert {item["format"] for item in found["backends"]} >= {"onnx", "onnx-cuda", "csr", "native", "tensorrt"}
    onnx = next(item for item in found["backends"] if item["format"] == "onnx")
    assert onnx["runs_on"].startswith("onnxruntime ")
    assert all(item["version"] or item["remedy"] for item in found["capabilities"])
    versions = {item["name"]: item["version"] for item in found["capabilities"]}
    assert versions["torchvision"]  # it is here, and was called missing beside a CPU-only torch


def test_targets():
    found = answer("robust-edge", "targets")
    assert {"x86-cpu", "x86-cpu-int8", "x86-cpu-csr", "jetson-gpu-7.2"} & set(found)
    for target in found.values():
        assert target["precisions"]
        assert target["limits"]
    text = run("robust-edge", "targets").stdout
    assert all(name in text for name in found)


@BOTH
@pytest.mark.parametrize(
    ("subject", "words", "code"),
    [
        ("sealed", ["--mode", "replay", "--json", *LENIENT], 0),
        ("sealed", ["--mode", "replay", "--json"], 5),
        ("rolled", ["--json"], 1),
        ("sealed", ["--allow", "randomized"], 2),
        ("unknown", [], 3),
        ("damaged", [], 4),
    ],
)
def test_every_code_leaves_the_installed_command(command, subject, words, code, request):
    done = run_installed(command, "verify", request.getfixturevalue(subject), *words, expect=code)
    if code in (2, 3, 4):
        assert _only_line(done)
    else:
        assert json.loads(done.stdout)["passed"] == (code == 0)


def test_the_installed_command_predicts_times_and_lists(sealed, image, tmp_path):
    (row,) = json.loads(run_installed("robust-edge-device", "predict", sealed, image, "--json").stdout)
    assert row["label"] == "north"
    out = tmp_path / "bench.json"
    timed = json.loads(run_installed("robust-edge-device", "bench", sealed, *FAST, "--json", "-o", out).stdout)
    assert timed == json.loads(out.read_text())
    assert "x86-cpu" in json.loads(run_installed("robust-edge", "targets", "--json").stdout)


@pytest.mark.parametrize("command", ["targets", "doctor"])
def test_words_that_mean_nothing(command):
    assert "mispelt" in complaint("robust-edge", command, "mispelt", expect=2)
