"""Whatever bytes a stranger sends: the readers of manifests and of arrays refuse, or read what is really there.

Seeded mutations, the same in every run; SEED and the number of the case are in a failure's message.
"""

from __future__ import annotations

import contextlib
import json
import math
import tracemalloc

import numpy as np

from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import BundleError
from robust_edge_runtimes.core.golden import GOLDEN

SEED, CASES, ARRAYS = 20261124, 600, 400
MEMORY = 64 << 20
ODD = [
    None, True, 0, -1, 1 << 70, -0.0, 1e308, "", "\0", "a" * 5000, "../x", "/etc/passwd", "NaN", "é\ud800", [], {},
    [[]], {"a": {}}, [1, "x", None], "fp32", "onnx", "images", [None, 1, 4, 4], [0, 0, 0, 0], [-1], [1 << 40, 1, 1, 1],
]  # fmt: skip
SPLICES = [
    b"",
    b"\0",
    b"\xff",
    b'"',
    b"{",
    b"}",
    b"[" * 500,
    b"1e999",
    b"NaN",
    b"Infinity",
    b"PK\x03\x04",
    b"\x93NUMPY",
]


def cases(count=CASES):
    """(number, generator of its own), so many."""
    for number in range(count):
        yield number, np.random.default_rng((SEED, number))


def places(value, path=()):
    """Every place in nested JSON."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield from places(item, (*path, key))


def mutated(value, random):
    """One to three places changed, removed, doubled or renamed."""
    value = json.loads(json.dumps(value))
    for _ in range(random.integers(1, 4)):
        path = list(places(value))[1:]
        if not path:
            break
        *above, key = path[random.integers(len(path))]
        parent = value
        for step in above:
            parent = parent[step]
        kind = random.integers(4)
        if kind == 0:
            del parent[key]
        elif kind == 1 and isinstance(parent, dict):
            parent[f"{key}x"] = parent.pop(key)
        elif kind == 2 and isinstance(parent, list):
            parent.append(parent[key])
        else:
            parent[key] = ODD[random.integers(len(ODD))]
    return value


def spliced(blob, random):
    """Bytes cut out, put in, flipped or repeated somewhere."""
    data = bytearray(blob)
    for _ in range(random.integers(1, 4)):
        offset = int(random.integers(len(data) + 1))
        kind = random.integers(4)
        if kind == 0:
            del data[offset : offset + int(random.integers(1, 64))]
        elif kind == 1:
            data[offset:offset] = SPLICES[random.integers(len(SPLICES))]
        elif kind == 2 and offset < len(data):
            data[offset] ^= 1 << int(random.integers(8))
        else:
            data[offset:offset] = data[offset : offset + int(random.integers(1, 64))]
    return bytes(data)


def refused_readably(message):
    """One line of bounded length that a terminal can print."""
    assert "\n" not in message
    assert len(message) < 1000
    return bool(message.encode())


@contextlib.contextmanager
def in_bounds():
    """No input makes a reader take much memory."""
    tracemalloc.start()
    try:
        yield
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < MEMORY


def read(folder):
    """Open a bundle and its arrays, in bounded memory; True if it was taken, which must then be sound."""
    try:
        with in_bounds():
            opened = open_bundle(folder)
            golden = opened.golden()
    except BundleError as error:
        return not refused_readably(str(error))
    count = len(golden.labels)
    assert count > 0
    assert golden.clean.shape == golden.attacked.shape == (count, *opened.manifest.input.shape[1:])
    assert golden.clean.dtype == golden.attacked.dtype == golden.clean_logits.dtype == np.float32
    assert golden.clean_logits.shape == golden.attacked_logits.shape == (count, len(opened.manifest.classes))
    for images in (golden.clean, golden.attacked):
        assert images.min() >= 0
        assert images.max() <= 1
    assert np.isfinite(golden.clean_logits).all()
    assert 0 <= golden.labels.min() <= golden.labels.max() < len(opened.manifest.classes)
    assert math.isfinite(golden.tolerance)
    return True


def test_manifests_whose_values_are_odd(bundle, forge):
    good = json.loads((bundle / "manifest.json").read_text())
    taken = refused = 0
    for number, random in cases():
        blob = json.dumps(mutated(good, random)).encode()
        try:
            ok = read(forge(bundle, raw=blob))
        except Exception as cause:
            raise AssertionError(f"case {number} of seed {SEED}: {blob[:2000]!r}") from cause
        finally:
            (bundle / "manifest.json").write_text(json.dumps(good))
        taken, refused = taken + ok, refused + (not ok)
    assert refused > 10 * taken
    assert refused > CASES / 2


def test_manifests_whose_bytes_are_odd(bundle, forge):
    good = (bundle / "manifest.json").read_bytes()
    refused = 0
    for number, random in cases():
        blob = spliced(good, random)
        try:
            refused += not read(forge(bundle, raw=blob))
        except Exception as cause:
            raise AssertionError(f"case {number} of seed {SEED}: {blob[:2000]!r}") from cause
        finally:
            (bundle / "manifest.json").write_bytes(good)
    assert refused > CASES / 2


def test_arrays_whose_bytes_are_odd(bundle, forge):
    """The hashes are made to agree again, so that the reader of arrays itself has to judge."""
    path = bundle / GOLDEN
    good = path.read_bytes()
    refused = 0
    for number, random in cases(ARRAYS):
        path.write_bytes(spliced(good, random))
        try:
            refused += not read(forge(bundle))
        except Exception as cause:
            raise AssertionError(f"case {number} of seed {SEED}") from cause
    assert refused > ARRAYS / 2


def test_the_unchanged_bundle_is_taken(bundle, forge):
    assert read(bundle)
    assert read(forge(bundle))
