"""The HTTP service of examples/embedding: answers, limits, slow clients and a graceful end."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from robust_edge_runtimes.load import load
from tests.conftest import CLASSES
from tests.examples.embedding import FOLDER, module, program

pytest.importorskip("onnxruntime", reason="the bundles of these tests run on onnxruntime")


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
    "head",
    [
        "POST /predict HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked",
        "POST /predict HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4",
        "POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked",
        "GET /healthz HTTP/1.1\r\nTransfer-Encoding: chunked",
        "GET /healthz HTTP/1.1\r\nContent-Length: 3",
    ],
)
def test_a_request_that_a_proxy_may_end_elsewhere_is_refused_and_what_follows_is_not_answered(address, head):
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(f"{head}\r\n\r\nabcGET /metrics HTTP/1.1\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_a_picture_of_many_pixels_is_refused_by_its_header(address):
    pytest.importorskip("PIL.Image", reason="pictures are read by Pillow")
    header = b"P6 5800 5800 255\n"  # and no pixels
    status, value = ask(address, "POST", "/predict", header, {"Content-Type": "image/x-portable-pixmap"})
    assert status == 400
    assert "33640000 pixels" in value["error"]


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


def wait_for(started, *phases):
    """Until the connections of the service are in these phases; after an answer, for a moment, they are not."""
    deadline = time.monotonic() + 10
    while True:
        with started.lock:
            found = sorted(phase for phase, _ in started.connections.values())
        if found == sorted(phases):
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.01)


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
    with contextlib.suppress(ConnectionResetError):  # where bytes of it were not read yet
        assert slow[0].recv(100)[:12] in (b"", b"HTTP/1.1 400")
    for connection in slow:
        connection.close()


def test_the_body_of_an_answer_does_not_wait_for_the_acknowledgement_of_its_head(service):
    _, started, address = service
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request("GET", "/healthz")
    connection.getresponse().read()
    (accepted,) = started.connections
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connection.close()


def test_metrics_count_what_was_answered(golden, service):
    _, started, address = service
    for i in range(3):
        ask(address, "POST", "/predict", sent(golden.clean[: i + 1]))
    ask(address, "POST", "/predict", b"{")
    while started.connections:  # which the client has closed, and the service closes next
        time.sleep(0.01)
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
    wait_for(started, serve.IDLE)
    body = sent(golden.clean[:1]).encode()
    begun = slow_upload(address, length=len(body))
    wait_for(started, serve.IDLE, serve.ARRIVING)
    started.stop()
    assert idle.sock.recv(1) == b""
    begun.sendall(body[1:])
    answer = begun.recv(10_000)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" in answer
    idle.close()
    begun.close()
