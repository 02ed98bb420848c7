"""Serve a bundle over HTTP with the standard library, numpy and the backend of the bundle.

    python serve.py bundle/ --port 8080
    curl localhost:8080/healthz     # what is served; 503 while it stops
    curl localhost:8080/metrics     # for Prometheus
    curl localhost:8080/predict -d '{"images": [[[[0.0, 0.5, ...], ...]]]}'
    curl localhost:8080/predict -H 'Content-Type: image/jpeg' --data-binary @cat.jpg

`images` is (N, C, H, W) pixels in [0, 1]; a picture of any size is prepared as in the training (needs Pillow). Answers
are JSON: {"predictions": [{"label", "probability"}, ...]}, or {"error": "..."} with 400 (not what the network takes),
404, 405, 408 (too slow), 411, 413 (too large) or 503 (too many at once; try again). A body has one Content-Length: what
a proxy might take for the end of another request is refused, and so are pictures of more than MAX_PIXELS.

A request has REQUEST_S seconds to arrive, however its bytes trickle, and takes one of the MAX_AT_ONCE slots only when
it is complete; MAX_WAITING more wait for one. Beyond MAX_CONNECTIONS connections, the one that has waited or been
sending for the longest time is closed for a new one. So slow clients shut nobody out.
For a private network: there is neither TLS nor a password. SIGTERM ends it after the requests that have begun.
"""

import argparse
import contextlib
import io
import json
import signal
import socket
import sys
import threading
import time
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from robust_edge_runtimes import InputError, RobustEdgeError, load

MAX_IMAGES = 64  # of one request
BYTES_PER_PIXEL = 32  # of JSON, generously
PICTURE_BYTES = 16 << 20
MAX_PIXELS = 1 << 25  # of a picture: decoding takes up to 16 bytes for each, and a small file can hold many
MAX_LOGGED = 200  # characters
MAX_AT_ONCE = 4  # requests that compute
MAX_WAITING = 32  # complete requests that wait for a slot
MAX_CONNECTIONS = 64
REQUEST_S = 10  # from a request's first byte to its last one, and as long again to answer it
IDLE_S = 30  # between two requests on one connection
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
IDLE, ARRIVING, ANSWERING = "idle", "arriving", "answering"


class Refusal(Exception):
    """An error response: a status other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Metrics:
    """Counters in Prometheus' text format."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.requests = {}
        self.images = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(BUCKETS_S) + 1)  # each with its own durations only

    def count(self, status: int) -> None:
        with self.lock:
            self.requests[status] = self.requests.get(status, 0) + 1

    def predicted(self, images: int, seconds: float) -> None:
        with self.lock:
            self.images += images
            self.seconds += seconds
            self.buckets[sum(seconds > bound for bound in BUCKETS_S)] += 1

    def text(self, gauges: dict, info: dict) -> str:
        with self.lock:
            labels = ",".join(f"{name}={json.dumps(value)}" for name, value in info.items())
            lines = ["# TYPE robust_edge_artifact_info gauge", f"robust_edge_artifact_info{{{labels}}} 1"]
            for name, value in gauges.items():
                lines += [f"# TYPE robust_edge_{name} gauge", f"robust_edge_{name} {value}"]
            lines.append("# TYPE robust_edge_requests_total counter")
            lines += [f'robust_edge_requests_total{{code="{code}"}} {n}' for code, n in sorted(self.requests.items())]
            lines += ["# TYPE robust_edge_images_total counter", f"robust_edge_images_total {self.images}"]
            name, total = "robust_edge_predict_seconds", 0  # of complete requests: waiting for a slot, and computing
            lines.append(f"# TYPE {name} histogram")
            for i, bound in enumerate((*BUCKETS_S, "+Inf")):
                total += self.buckets[i]
                lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
            lines += [f"{name}_sum {self.seconds:.9f}", f"{name}_count {total}"]
            return "\n".join(lines) + "\n"


class Service(ThreadingHTTPServer):
    """One open model, shared by the threads of all connections; runtimes are thread-safe."""

    daemon_threads = False  # so that the end waits for requests that have begun
    request_queue_size = 64

    def __init__(self, address, model) -> None:
        super().__init__(address, Handler)
        self.model = model
        self.shape = model.manifest.input.shape[1:]
        self.max_bytes = 1024 + BYTES_PER_PIXEL * MAX_IMAGES * int(np.prod(self.shape))
        self.free = threading.BoundedSemaphore(MAX_AT_ONCE)
        self.metrics = Metrics()
        self.lock = threading.Lock()  # of what follows
        self.stopping = False
        self.waiting = 0
        self.connections = {}  # socket to what it does, and since when

    def process_request(self, request, client_address) -> None:
        """Start a thread for a new connection; if there are too many, an idle or a slow one makes room."""
        with self.lock:
            full = len(self.connections) >= MAX_CONNECTIONS
            slow = [(since, other) for other, (phase, since) in self.connections.items() if phase != ANSWERING]
            if full and slow:
                victim = min(slow, key=lambda item: item[0])[1]
                del self.connections[victim]
                close(victim)
            refused = full and not slow
            if not refused:
                self.connections[request] = (IDLE, time.monotonic())
        if refused:
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def enter(self, request, phase: str) -> bool:
        """Note what a connection does now; False if it shall end instead."""
        with self.lock:
            if request not in self.connections or (self.stopping and phase == IDLE):
                return False
            self.connections[request] = (phase, time.monotonic())
            return True

    def shutdown_request(self, request) -> None:
        with contextlib.suppress(KeyError), self.lock:
            del self.connections[request]
        super().shutdown_request(request)

    def stop(self) -> None:
        """End the loop, and connections without a request. Leaving the server waits for the others."""
        with self.lock:
            self.stopping = True
            for request, (phase, _) in self.connections.items():
                if phase == IDLE:
                    close(request)
        self.shutdown()

    @contextlib.contextmanager
    def slot(self, deadline: float):
        """Hold one of the slots for computing; wait for it until the deadline if the queue is not full."""
        with self.lock:
            if self.waiting >= MAX_AT_ONCE + MAX_WAITING:
                raise Refusal(503, f"more than {MAX_WAITING} requests wait; try again")
            self.waiting += 1
        try:
            if not self.free.acquire(timeout=max(0, deadline - time.monotonic())):
                raise Refusal(503, "too many requests at once; try again")
            try:
                yield
            finally:
                self.free.release()
        finally:
            with self.lock:
                self.waiting -= 1

    def metrics_text(self) -> str:
        """All metrics, for GET /metrics."""
        with self.lock:
            gauges = {"requests_in_progress": self.waiting, "connections": len(self.connections)}
        health = self.health()
        return self.metrics.text(gauges, {name: health[name] for name in ("artifact_sha256", "target", "backend")})

    def health(self) -> dict:
        """The artifact and the runtime, for GET /healthz and /health."""
        info, artifact = self.model.info, self.model.manifest.artifact
        return {
            "status": "stopping" if self.stopping else "ok",
            "target": self.model.manifest.target,
            "artifact_sha256": artifact.sha256,
            "backend": f"{info.backend} {info.version}",
            "input": list(self.shape),
            "classes": list(self.model.manifest.classes),
        }

    def predict(self, body: bytes, *, is_picture: bool) -> dict:
        """Classify the images of a request."""
        try:
            images = self.model.read(body)[None] if is_picture else parsed(body)
            if images.ndim and len(images) > MAX_IMAGES:
                raise Refusal(413, f"{len(images)} images; at most {MAX_IMAGES} in one request")
            logits = self.model.infer_all(images).astype(np.float64)
        except InputError as error:
            raise Refusal(400, str(error)) from error
        likely = np.exp(logits - logits.max(1, keepdims=True))
        likely /= likely.sum(1, keepdims=True)
        classes = self.model.manifest.classes
        best = [(row.argmax(), row.max()) for row in likely]
        return {"predictions": [{"label": classes[k], "probability": float(p)} for k, p in best]}

    def handle_error(self, request, client_address) -> None:
        """Ignore clients that closed the connection."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Arriving(io.RawIOBase):
    """The bytes of a connection until a deadline, which no slow sender can move."""

    deadline = 0.0

    def __init__(self, connection) -> None:
        self.connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request took too long")
        self.connection.settimeout(left)
        return self.connection.recv_into(buffer)


class Handler(BaseHTTPRequestHandler):
    """GET /healthz, /health and /metrics, and POST /predict."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else the body waits until the client has acknowledged the head, 40 ms on Linux
    error_content_type = "application/json"  # what the base class refuses: broken requests, other methods
    error_message_format = '{"error": "HTTP %(code)d"}'
    server: Service

    def setup(self) -> None:
        super().setup()
        self.arriving = Arriving(self.connection)
        self.rfile.close()
        self.rfile = io.BufferedReader(self.arriving)

    def handle_one_request(self) -> None:
        """Wait for the first byte; the time of a request counts from there."""
        self.close_connection = True
        if not self.server.enter(self.connection, IDLE):
            return
        self.arriving.deadline = time.monotonic() + IDLE_S
        with contextlib.suppress(OSError):
            if self.rfile.peek(1) and self.server.enter(self.connection, ARRIVING):
                self.arriving.deadline = time.monotonic() + REQUEST_S
                super().handle_one_request()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        try:
            status, value = self.result()
        except Refusal as refusal:
            status, value = refusal.status, {"error": str(refusal)}
        except RobustEdgeError as error:  # the artifact's fault, not the client's
            status, value = 500, {"error": str(error)}
        self.server.metrics.count(status)
        is_text = isinstance(value, str)
        blob = value.encode() if is_text else json.dumps(value).encode()
        self.connection.settimeout(REQUEST_S)  # of the whole answer: sendall() counts all its parts
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4" if is_text else "application/json")
        self.send_header("Content-Length", str(len(blob)))
        if status == 503:
            self.send_header("Retry-After", "1")
        if status >= 400 or self.server.stopping:  # the rest of a body that was not read is no request
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(blob)

    def result(self) -> tuple:
        """Status, and the answer: text, or what becomes JSON."""
        lengths = self.headers.get_all("Content-Length", ["0"] if self.command == "GET" else [])
        if "Transfer-Encoding" in self.headers or len(lengths) > 1:
            raise Refusal(400, "send one Content-Length, and no Transfer-Encoding")
        if self.command == "GET" and lengths != ["0"]:
            raise Refusal(400, "GET has no body")
        methods = {"/healthz": "GET", "/health": "GET", "/metrics": "GET", "/predict": "POST"}
        if self.path not in methods:
            raise Refusal(404, f"there are {', '.join(methods)}")
        if self.command != methods[self.path]:
            raise Refusal(405, f"{self.path} takes {methods[self.path]}")
        if self.path == "/metrics":
            return 200, self.server.metrics_text()
        if self.path != "/predict":
            return 503 if self.server.stopping else 200, self.server.health()
        is_picture = self.headers.get("Content-Type", "").startswith("image/")
        body = self.body(PICTURE_BYTES if is_picture else self.server.max_bytes)
        start = time.monotonic()
        if not self.server.enter(self.connection, ANSWERING):
            raise Refusal(408, "the request took too long")
        with self.server.slot(start + REQUEST_S):
            answer = self.server.predict(body, is_picture=is_picture)
        self.server.metrics.predicted(len(answer["predictions"]), time.monotonic() - start)
        return 200, answer

    def body(self, most: int) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            raise Refusal(411, "send the body's Content-Length")
        if len(length) > 12 or int(length) > most:
            raise Refusal(413, f"send at most {most} bytes in one request")
        try:
            body = self.rfile.read(int(length))
        except OSError as error:
            raise Refusal(408, f"the request did not arrive within {REQUEST_S} s") from error
        if len(body) < int(length):
            raise Refusal(400, f"the body ends after {len(body)} of {length} bytes")
        return body

    def send_error(self, code, message=None, explain=None) -> None:
        """Answer what the base class refuses."""
        self.server.metrics.count(int(code))
        super().send_error(code, message, explain)

    def log_message(self, pattern: str, *values: object) -> None:
        """Print one line per request on stderr, in ASCII because the client may send control characters."""
        print(self.address_string(), ascii((pattern % values)[:MAX_LOGGED]), file=sys.stderr, flush=True)


def close(connection) -> None:
    """End a connection; the thread that reads it finds its end."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def parsed(body: bytes) -> np.ndarray:
    """Decode the images of a request; the model checks their shape and range."""
    try:
        request = json.loads(body)
        return np.array(request["images"], dtype=np.float32)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        shown = f"{type(error).__name__}: {error}"[:200]
        raise Refusal(400, f'send {{"images": [...]}}, numbers as (N, C, H, W); {shown}') from error


def limit_pictures() -> None:
    """Let Pillow refuse larger pictures by their header, before they are decoded."""
    with contextlib.suppress(ImportError):
        from PIL import Image

        Image.MAX_IMAGE_PIXELS = MAX_PIXELS
        warnings.simplefilter("error", Image.DecompressionBombWarning)


def listening(host: str, port: int, model) -> Service:
    """Create the server, bound to its address."""
    try:
        return Service((host, port), model)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen on {host}:{port} ({error}); choose another --host or --port") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="0 takes any that is free")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of one inference")
    given = parser.parse_args()
    limit_pictures()
    with load(given.bundle, threads=given.threads) as model, listening(given.host, given.port, model) as service:
        for number in (signal.SIGTERM, signal.SIGINT):  # stop() waits for the loop, which this thread runs
            signal.signal(number, lambda *_: threading.Thread(target=service.stop).start())
        host, port = service.server_address[:2]
        print(f"serving {given.bundle} on http://{host}:{port}", flush=True)
        service.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    try:
        main()
    except RobustEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
