"""The programs of examples/embedding, each run on a bundle as its first lines say."""

from __future__ import annotations

import contextlib
import csv
import http.client
import importlib.util
import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from robust_edge_runtimes.formats.native.engine import find_compiler
from robust_edge_runtimes.load import load
from tests.conftest import CLASSES

pytest.importorskip("onnxruntime", reason="the bundles of these tests run on onnxruntime")

FOLDER = Path(__file__).parents[2] / "examples/embedding"


def program(name, *words, code=0):
    command = [sys.executable, str(FOLDER / name), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def module(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found  # dataclasses look there
    spec.loader.exec_module(found)
    return found


@pytest.fixture(scope="module")
def levels(golden):
    """Eight pictures of 8 bits."""
    return np.round(golden.clean[:8] * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def answers(sealed, levels):
    """Their labels and probabilities."""
    with load(sealed) as model:
        return [model.classify(picture.astype(np.float32) / np.float32(255)) for picture in levels]


@pytest.fixture(scope="module")
def pictures(levels, tmp_path_factory):
    image = pytest.importorskip("PIL.Image", reason="pictures are read by Pillow")
    folder = tmp_path_factory.mktemp("pictures")
    for i, picture in enumerate(levels):
        image.fromarray(picture[0]).save(folder / f"{i}.png")
    return folder


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


def test_a_port_that_is_taken_is_one_line(sealed, address):
    done = program("serve.py", sealed, "--port", address.rsplit(":", 1)[1], code=2)
    assert done.stderr.startswith("error: cannot listen on 127.0.0.1:")
    assert len(done.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def address(sealed, tmp_path_factory):
    """The service, ended by SIGTERM as a supervisor does."""
    command = [sys.executable, str(FOLDER / "serve.py"), str(sealed), "--port", "0"]
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("w") as file, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True) as process:
        try:
            first = process.stdout.readline()
            assert "http://" in first, log.read_text()
            yield first.rsplit("/", 1)[1].strip()
            process.send_signal(signal.SIGTERM)
            assert process.wait(15) == 0
        finally:
            process.kill()
    assert "Traceback" not in log.read_text()


def ask(address, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def sent(images):
    return json.dumps({"images": np.asarray(images).tolist()})


@pytest.mark.parametrize("path", ["/health", "/healthz"])
def test_health_names_the_artifact(address, opened, path):
    status, value = ask(address, "GET", path)
    assert status == 200
    assert value["status"] == "ok"
    assert value["artifact_sha256"] == opened.manifest.artifact.sha256
    assert (value["input"], value["classes"]) == ([1, 4, 4], list(CLASSES))


def test_predictions_are_those_of_the_runtime_for_eight_clients_at_once(address, sealed, golden):
    with load(sealed) as model:
        expected = [model.classify(image) for image in golden.clean]

    def client(k):
        right = 0
        for turn in range(10):
            i = (5 * k + turn) % 50
            status, value = ask(address, "POST", "/predict", sent(golden.clean[i : i + 3]))
            assert status == 200, value
            found = [(item["label"], item["probability"]) for item in value["predictions"]]
            right += all(
                label == e[0] and abs(p - e[1]) < 1e-5 for (label, p), e in zip(found, expected[i : i + 3], strict=True)
            )
        return right

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(client, range(8))) == [10] * 8


def test_a_picture_file_is_answered_as_its_pixels(address, pictures, answers):
    for i, (label, probability) in enumerate(answers):
        status, value = ask(
            address, "POST", "/predict", (pictures / f"{i}.png").read_bytes(), {"Content-Type": "image/png"}
        )
        assert status == 200, value
        (found,) = value["predictions"]
        assert (found["label"], pytest.approx(found["probability"])) == (label, probability)
    status, value = ask(address, "POST", "/predict", b"no picture", {"Content-Type": "image/jpeg"})
    assert (status, "cannot be read as an image" in value["error"]) == (400, True)


IMAGE = np.full((1, 1, 4, 4), 0.5)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[]", 400),
        (b"{}", 400),
        (b'{"images": null}', 400),
        (b'{"images": []}', 400),
        (b'{"images": 0.5}', 400),
        (b'{"images": "abc"}', 400),
        (b'{"images": [[[[0.5], [0.5, 0.5]]]]}', 400),
        (b'{"images": ' + b"[" * 3000 + b"]" * 3000 + b"}", 400),
        (sent(IMAGE + 1), 400),
        (sent(IMAGE * np.nan), 400),
        (sent(IMAGE).replace("0.5", "1e999"), 400),
        (sent(IMAGE).replace("0.5", "9" * 500), 400),
        (sent(IMAGE[:, :, :3]), 400),
        (sent(IMAGE[0]), 400),
        (sent(np.full((65, 1, 4, 4), 0)), 413),
    ],
)
def test_other_bodies_are_refused_in_one_line_of_json(address, body, status):
    found, value = ask(address, "POST", "/predict", body)
    assert found == status, value
    assert list(value) == ["error"]
    assert "\n" not in value["error"]
    assert ask(address, "POST", "/predict", sent(IMAGE))[0] == 200  # it still works


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/../etc", 404),
        ("POST", "/health", 405),
        ("GET", "/predict", 405),
        ("PUT", "/", 501),
    ],
)
def test_other_requests_are_refused(address, method, path, status):
    assert ask(address, method, path)[0] == status


@pytest.mark.parametrize(
    ("length", "status"), [("1000000000", 413), ("9" * 400, 413), ("-1", 411), ("x", 411), ("²", 411)]
)
def test_a_body_is_not_read_before_its_length_is_judged(address, length, status):
    headers = {"Content-Length": length.encode("latin-1")}
    assert ask(address, "POST", "/predict", b"", headers)[0] == status


@pytest.fixture
def service(sealed, monkeypatch):
    """The service in this process, with short deadlines, and its module."""
    serve = module("serve")
    monkeypatch.setattr(serve, "REQUEST_S", 1.0)
    monkeypatch.setattr(serve.Handler, "log_message", lambda *words: None)
    with load(sealed) as model, serve.Service(("127.0.0.1", 0), model) as started:
        thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield serve, started, "{}:{}".format(*started.server_address)
        finally:
            started.stop()
            thread.join()


def test_too_many_at_once_are_told_to_come_again(golden, service):
    serve, started, address = service
    for _ in range(serve.MAX_AT_ONCE):
        started.free.acquire()
    start = time.monotonic()
    assert ask(address, "POST", "/predict", sent(golden.clean[:1]))[0] == 503  # after it waited
    assert time.monotonic() - start >= serve.REQUEST_S
    started.waiting += serve.MAX_AT_ONCE + serve.MAX_WAITING
    assert "wait; try again" in ask(address, "POST", "/predict", sent(golden.clean[:1]))[1]["error"]
    assert ask(address, "GET", "/healthz")[0] == 200
    started.waiting = 0
    started.free.release()
    assert ask(address, "POST", "/predict", sent(golden.clean[:1]))[0] == 200


def slow_upload(address, length=100):
    """A connection that has sent the head of a request and a part of its body."""
    host, port = address.split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.sendall(f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{{".encode())
    return connection


def test_slow_uploads_do_not_shut_good_clients_out(golden, service):
    _, _, address = service
    slow = [slow_upload(address) for _ in range(16)]
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda i: ask(address, "POST", "/predict", sent(golden.clean[i : i + 1]))[0], range(40))
        assert list(found) == [200] * 40
    for connection in slow:
        assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        connection.close()


def test_a_trickle_of_bytes_does_not_move_the_deadline(service):
    serve, _, address = service
    connection = slow_upload(address, length=1000)
    start = time.monotonic()
    with contextlib.suppress(OSError):  # once the service has closed it
        for _ in range(1000):
            connection.sendall(b" ")
            time.sleep(0.02)
    assert serve.REQUEST_S <= time.monotonic() - start < 5
    connection.close()


def test_the_oldest_connection_makes_room_for_a_new_one(golden, service, monkeypatch):
    serve, started, address = service
    monkeypatch.setattr(serve, "MAX_CONNECTIONS", 4)
    slow = [slow_upload(address) for _ in range(12)]
    assert ask(address, "POST", "/predict", sent(golden.clean[:1]))[0] == 200
    assert len(started.connections) <= 4
    assert slow[0].recv(100)[:12] in (b"", b"HTTP/1.1 400")
    for connection in slow:
        connection.close()


def test_metrics_count_what_was_answered(golden, service):
    _, _, address = service
    for i in range(3):
        ask(address, "POST", "/predict", sent(golden.clean[: i + 1]))
    ask(address, "POST", "/predict", b"{")
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    assert response.getheader("Content-Type") == "text/plain; version=0.0.4"
    lines = [line for line in response.read().decode().splitlines() if not line.startswith("#")]
    connection.close()
    found = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
    assert found['robust_edge_requests_total{code="200"}'] == 3
    assert found['robust_edge_requests_total{code="400"}'] == 1
    assert found["robust_edge_images_total"] == 6
    assert found["robust_edge_predict_seconds_count"] == found['robust_edge_predict_seconds_bucket{le="+Inf"}'] == 3
    assert found["robust_edge_connections"] == 1
    buckets = [value for name, value in found.items() if "_bucket" in name]
    assert buckets == sorted(buckets)


def test_a_stop_ends_idle_connections_and_answers_requests_that_have_begun(golden, service):
    serve, started, address = service
    idle = http.client.HTTPConnection(address, timeout=10)
    idle.request("GET", "/healthz")
    idle.getresponse().read()
    body = sent(golden.clean[:1]).encode()
    begun = slow_upload(address, length=len(body))
    while serve.ARRIVING not in {phase for phase, _ in started.connections.values()}:
        time.sleep(0.01)
    started.stop()
    assert idle.sock.recv(1) == b""
    begun.sendall(body[1:])
    answer = begun.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" in answer
    idle.close()
    begun.close()


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
