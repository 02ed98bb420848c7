"""Model files written to break their reader, in bundles whose hashes agree."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robust_edge_runtimes.formats.onnx.wire import has_external_data

# A backend that falls over takes its process along, so the mutations run in one of their own.
SCRIPT = """
    import sys
    from pathlib import Path
    import numpy as np
    from robust_edge_runtimes.formats.onnx.runtime import OnnxRuntime
    from robust_edge_runtimes.core.bundle import open_bundle
    from robust_edge_runtimes.core.errors import BackendUnavailable, BundleError

    bundle = open_bundle(sys.argv[1])
    images = bundle.golden().clean[:2]
    whole = bundle.artifact_path.read_bytes()
    random, refused, answered = np.random.default_rng(0), 0, 0
    for _ in range(300):
        changed = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            changed[random.integers(len(changed))] = random.integers(256)
        bundle.artifact_path.write_bytes(changed)
        try:
            with OnnxRuntime(bundle.artifact_path, bundle.manifest) as model:
                assert model.infer(images).shape == (2, 4)
            answered += 1
        except (BundleError, BackendUnavailable):  # a version that was mutated upwards reads as too new
            refused += 1
    print(refused, answered)
"""


def test_a_mutated_model_is_refused_or_answers(bundle):
    pytest.importorskip("onnxruntime", reason="the artifact runs on onnxruntime")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(SCRIPT), str(bundle)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    refused, answered = map(int, done.stdout.split())
    assert refused > 50
    assert answered > 50  # most weights may be anything: the mutations reach the backend


@pytest.fixture(scope="module")
def scratch(sealed, tmp_path_factory):
    return shutil.copy(sealed / "model.onnx", tmp_path_factory.mktemp("scratch") / "model.onnx")


@settings(max_examples=500, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200), st.integers(0, 480), st.integers(0, 40))
def test_the_wire_reader_ends_and_raises_nothing_but_value_errors(scratch, sealed, some, offset, removed):
    blob = bytearray((sealed / "model.onnx").read_bytes())
    blob[offset : offset + removed] = some
    scratch.write_bytes(blob)
    with contextlib.suppress(ValueError):
        has_external_data(scratch)


@pytest.mark.parametrize("depth", [10, 1000, 20_000])
def test_nested_graphs_exhaust_no_stack(tmp_path, depth):
    """Graph in attribute in node in graph: the reader keeps its own stack."""
    blob = b""
    for field in [6, 5, 1] * depth:  # attribute.g, node.attribute, graph.node, from the inside out
        size, length = len(blob), bytearray()
        while size > 0x7F:
            length.append(size & 0x7F | 0x80)
            size >>= 7
        blob = bytes([field << 3 | 2]) + bytes(length) + bytes([size]) + blob
        if len(blob) > 1 << 16:
            break
    path = tmp_path / "deep.onnx"
    size = len(blob)
    path.write_bytes(b"\x3a" + bytes([size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]) + blob)
    assert has_external_data(path) is False


def test_a_model_of_zeros_and_of_ones_ends_quickly(tmp_path):
    path = tmp_path / "m.onnx"
    for byte in (b"\x00", b"\x08", b"\x0a", b"\x7f", b"\xff"):
        path.write_bytes(np.tile(np.frombuffer(byte, np.uint8), 1 << 16).tobytes())
        with contextlib.suppress(ValueError):
            has_external_data(path)
