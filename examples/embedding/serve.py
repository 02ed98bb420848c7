"""Serve a bundle over HTTP with the standard library, numpy and the backend of the bundle.

    python serve.py bundle/ --port 8080
    curl localhost:8080/health
    curl localhost:8080/predict -d '{"images": [[[[0.0, 0.5, ...], ...]]]}'
    curl localhost:8080/predict -H 'Content-Type: image/jpeg' --data-binary @cat.jpg

`images` is (N, C, H, W) pixels in [0, 1]; a picture of any size is prepared as in the training (needs Pillow). Answers
are JSON: {"predictions": [{"label", "probability"}, ...]}, or {"error": "..."} with 400 (not what the network takes),
404, 405, 411, 413 (too large) or 503 (too many at once).
For a private network: there is neither TLS nor a password. SIGTERM ends it after the requests that run.
"""

import argparse
import json
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from robust_edge_runtimes import InputError, RobustEdgeError, load

MAX_IMAGES = 64  # of one request
BYTES_PER_PIXEL = 32  # of JSON, generously
PICTURE_BYTES = 16 << 20
MAX_AT_ONCE = 16
TIMEOUT_S = 10  # for a client that sends nothing more


class Refusal(Exception):
    """An error response: a status other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Service(ThreadingHTTPServer):
    """One open model, shared by the threads of all requests; runtimes are thread-safe."""

    daemon_threads = False  # so that the end waits for requests that run
    request_queue_size = 64

    def __init__(self, address, model) -> None:
        super().__init__(address, Handler)
        self.model = model
        self.shape = model.manifest.input.shape[1:]
        self.max_bytes = 1024 + BYTES_PER_PIXEL * MAX_IMAGES * int(np.prod(self.shape))
        self.free = threading.BoundedSemaphore(MAX_AT_ONCE)

    def health(self) -> dict:
        """The artifact and the runtime, for GET /health."""
        info, artifact = self.model.info, self.model.manifest.artifact
        return {
            "status": "ok",
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


class Handler(BaseHTTPRequestHandler):
    """GET /health and POST /predict."""

    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT_S
    error_content_type = "application/json"  # what the base class refuses: broken requests, other methods
    error_message_format = '{"error": "HTTP %(code)d"}'
    server: Service

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        try:
            status, value = 200, self.result()
        except Refusal as refusal:
            status, value = refusal.status, {"error": str(refusal)}
        except RobustEdgeError as error:  # the artifact's fault, not the client's
            status, value = 500, {"error": str(error)}
        blob = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(blob)))
        if status >= 400:  # a body may not have been read; what follows it on this connection is anybody's guess
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(blob)

    def result(self) -> dict:
        methods = {"/health": "GET", "/predict": "POST"}
        if self.path not in methods:
            raise Refusal(404, f"there are {' and '.join(methods)}")
        if self.command != methods[self.path]:
            raise Refusal(405, f"{self.path} takes {methods[self.path]}")
        if self.path == "/health":
            return self.server.health()
        if not self.server.free.acquire(blocking=False):
            raise Refusal(503, f"more than {MAX_AT_ONCE} requests at once; try again")
        try:
            is_picture = self.headers.get("Content-Type", "").startswith("image/")
            body = self.body(PICTURE_BYTES if is_picture else self.server.max_bytes)
            return self.server.predict(body, is_picture=is_picture)
        finally:
            self.server.free.release()

    def body(self, most: int) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            raise Refusal(411, "send the body's Content-Length")
        if len(length) > 12 or int(length) > most:
            raise Refusal(413, f"{length} bytes; at most {most} in one request")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise Refusal(400, f"the body ends after {len(body)} of {length} bytes")
        return body

    def log_message(self, pattern: str, *values: object) -> None:
        """Print one line per request on stderr, in ASCII because the client may send control characters."""
        print(self.address_string(), ascii(pattern % values), file=sys.stderr, flush=True)


def parsed(body: bytes) -> np.ndarray:
    """Decode the images of a request; the model checks their shape and range."""
    try:
        request = json.loads(body)
        return np.array(request["images"], dtype=np.float32)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        shown = f"{type(error).__name__}: {error}"[:200]
        raise Refusal(400, f'send {{"images": [...]}}, numbers as (N, C, H, W); {shown}') from error


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
    with load(given.bundle, threads=given.threads) as model, listening(given.host, given.port, model) as service:
        for number in (signal.SIGTERM, signal.SIGINT):  # shutdown() waits for the loop, which this thread runs
            signal.signal(number, lambda *_: threading.Thread(target=service.shutdown).start())
        host, port = service.server_address[:2]
        print(f"serving {given.bundle} on http://{host}:{port}", flush=True)
        service.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    try:
        main()
    except RobustEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
