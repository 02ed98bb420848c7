"""The programs of examples/embedding, each run on a bundle as its first lines say."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess

import numpy as np
import pytest

from robust_edge_runtimes.formats.native.engine import find_compiler
from tests.examples.embedding import FOLDER, module, program

pytest.importorskip("onnxruntime", reason="the bundles of these tests run on onnxruntime")


def test_a_folder_becomes_csv(sealed, pictures, answers, tmp_path):
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    np.save(folder / "7.npy", np.zeros((1, 4, 4), np.float32))
    rows = list(csv.reader(io.StringIO(program("classify_folder.py", sealed, folder).stdout)))
    assert rows[0] == ["image", "label", "probability"]
    found = {name: (label, probability) for name, label, probability in rows[1:]}
    assert set(found) == {f"{i}.png" for i in range(8)} | {"7.npy"}
    for i, (label, probability) in enumerate(answers):
        assert found[f"{i}.png"] == (label, f"{probability:.4f}")


def test_pictures_that_cannot_be_read_are_named_and_the_others_classified(sealed, pictures, tmp_path):
    folder = shutil.copytree(pictures, tmp_path / "pictures")
    (folder / "broken.png").write_bytes(b"no picture")
    np.save(folder / "wide.npy", np.zeros((1, 4, 5), np.float32))
    done = program("classify_folder.py", sealed, folder, code=1)
    assert len(done.stdout.splitlines()) == 9
    assert [name in done.stderr for name in ("broken.png", "wide.npy")] == [True, True]


@pytest.mark.parametrize("name", ["classify_folder.py", "serve.py", "camera_loop.py"])
def test_what_is_no_bundle_is_one_line_and_exit_4(name, pictures, tmp_path):
    words = [tmp_path / "absent", *([pictures] if name == "classify_folder.py" else [])]
    done = program(name, *words, code=4)
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("name", "words", "code"),
    [
        ("serve.py", ["--port", 99999], 2),
        ("serve.py", ["--host", "nowhere.invalid", "--port", 0], 2),
        ("camera_loop.py", ["--fps", 0], 2),
        ("camera_loop.py", ["--seconds", "nan"], 2),
        ("camera_loop.py", ["--budget-ms", -1], 2),
        ("camera_loop.py", ["--frames", "nowhere"], 1),
    ],
)
def test_a_request_that_cannot_be_met_is_said_without_a_traceback(sealed, name, words, code):
    assert program(name, sealed, *words, code=code).stdout == ""


class Clock:
    """Time that passes only when somebody works or sleeps."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Slow:
    """Takes a given time for each frame, and remembers which frames it saw."""

    def __init__(self, clock, durations):
        self.clock, self.durations, self.seen = clock, durations, []

    def classify(self, frame):
        self.seen.append(frame)
        self.clock.now += self.durations[min(len(self.seen), len(self.durations)) - 1]


@pytest.mark.parametrize(
    ("durations", "seen", "missed"),
    [
        ([0.04], list(range(10)), 0),  # in time
        ([0.35, 0.04], [0, 3, 4, 5, 6, 7, 8, 9], 1),  # one hiccup: 1 and 2 are dropped, and it catches up
        ([0.25], [0, 2, 5, 7, 9], 5),  # always too slow: the newest each time
        ([99.0], [0, 9], 2),
    ],
)
def test_the_camera_loop_takes_the_newest_and_drops_what_waited(durations, seen, missed):
    clock = Clock()
    model = Slow(clock, durations)
    camera = module("camera_loop")
    tally = camera.watch(model, iter(range(1000)), fps=10, seconds=1, budget_s=0.1, clock=clock, sleep=clock.sleep)
    assert model.seen == seen
    assert (len(tally.latencies), tally.dropped, tally.missed) == (len(seen), 10 - len(seen), missed)
    assert f"{len(seen)} answered, {10 - len(seen)} dropped, {missed} missed" in tally.line()


def test_the_camera_loop_on_noise_and_on_pictures(sealed, pictures):
    for words in ([], ["--frames", pictures]):
        line = program("camera_loop.py", sealed, *words, "--fps", "50", "--seconds", "0.2").stdout
        assert line.startswith("10 frames: ")
        assert "budget 20.00 ms" in line
    assert "budget 5.00 ms" in program("camera_loop.py", sealed, "--seconds", "0.1", "--budget-ms", "5").stdout


@pytest.fixture(scope="module")
def native(linear, sealed, tmp_path_factory):
    """classify.c with the linear classifier, compiled by the line that stands in it."""
    exporter = pytest.importorskip("robust_edge_exporters.native", reason="the sparse engine is an exporter")
    found = find_compiler()
    if found is None:
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("native")
    exporter.export_native(sealed / "model.onnx", folder)
    line = next(row for row in (FOLDER / "classify.c").read_text().splitlines() if " cc " in row)
    words = line.strip(" *").replace("NATIVE", str(folder)).replace("classify.c", str(FOLDER / "classify.c")).split()
    command = [*found[0], "-Wall", "-Wextra", "-Werror", *words[1:]]
    command[command.index("classify")] = str(folder / "classify")
    subprocess.run(command, check=True)
    return folder


def pgm(path, picture, header="P5 4 4 255\n"):
    path.write_bytes(header.encode() + picture.tobytes())
    return path


def c_program(folder, *words, code=0):
    done = subprocess.run([folder / "classify", *words], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def test_the_c_program_gives_the_runtimes_answers(native, sealed, levels, answers, tmp_path):
    headers = ["P5 4 4 255\n", "P5\n# by hand\n4 4\n# more\n#\n255\n"]
    paths = [pgm(tmp_path / f"{i}.pgm", levels[i], headers[i % 2]) for i in range(8)]
    lines = c_program(native, native / "weights.bin", sealed / "labels.txt", *paths).stdout.splitlines()
    assert lines == [f"{path}  {label}  {p:.3f}" for path, (label, p) in zip(paths, answers, strict=True)]


@pytest.mark.parametrize(
    ("header", "size", "reason"),
    [
        ("P6 4 4 255\n", 16, "is not a binary PGM (P5)"),
        ("P5 5 4 255\n", 16, "has another size than the network takes"),
        ("P5 4", 0, "has another size than the network takes"),
        ("P5 4 4 65535\n", 16, "has not 8 bits per channel"),
        ("P5 4 4 255\n", 15, "is cut short"),
        ("P5 # no end", 0, "has another size than the network takes"),
        ("", 0, "is not a binary PGM (P5)"),
    ],
)
def test_the_c_program_names_the_pictures_it_cannot_read(native, sealed, levels, tmp_path, header, size, reason):
    good = pgm(tmp_path / "good.pgm", levels[0])
    bad = pgm(tmp_path / "bad.pgm", levels[0].ravel()[:size], header)
    done = c_program(native, native / "weights.bin", sealed / "labels.txt", bad, good, code=1)
    assert done.stderr == f"{bad} {reason}\n"
    assert done.stdout.startswith(f"{good}  ")


def test_the_c_program_refuses_weights_and_labels_that_do_not_fit(native, sealed, levels, tmp_path):
    picture = pgm(tmp_path / "0.pgm", levels[0])
    damaged = bytearray((native / "weights.bin").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "weights.bin").write_bytes(damaged)
    labels = sealed / "labels.txt"
    assert "checksum" in c_program(native, tmp_path / "weights.bin", labels, picture, code=4).stderr
    assert "cannot be read" in c_program(native, tmp_path / "absent", labels, picture, code=4).stderr
    for text in ("a\nb\nc\n", "a\nb\nc\nd\ne\n", "x" * 200 + "\nb\nc\n"):
        (tmp_path / "labels.txt").write_text(text)
        words = [native / "weights.bin", tmp_path / "labels.txt", picture]
        assert "has not a label for each of the 4 classes" in c_program(native, *words, code=4).stderr


def test_every_file_is_named_in_the_readme():
    text = (FOLDER / "README.md").read_text()
    assert all(f"`{path.name}`" in text for path in FOLDER.iterdir() if path.suffix in (".py", ".c"))
