"""Whatever bytes a stranger sends: the readers of manifests and of arrays refuse, or read what is really there.

Seeded mutations, the same in every run; a failure's message has the number of the case. `make fuzz` runs more of them.
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
from tests.attacks.mutations import SEED, cases, mutated, numbers, spliced

MANIFESTS, ARRAYS = 600, 400
MEMORY = 64 << 20


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
    for number, random in cases(numbers(MANIFESTS)):
        blob = json.dumps(mutated(good, random)).encode()
        try:
            ok = read(forge(bundle, raw=blob))
        except Exception as cause:
            raise AssertionError(f"case {number} of seed {SEED}: {blob[:2000]!r}") from cause
        finally:
            (bundle / "manifest.json").write_text(json.dumps(good))
        taken, refused = taken + ok, refused + (not ok)
    assert refused > 10 * taken
    assert refused > len(numbers(MANIFESTS)) / 2


def test_manifests_whose_bytes_are_odd(bundle, forge):
    good = (bundle / "manifest.json").read_bytes()
    refused = 0
    for number, random in cases(numbers(MANIFESTS)):
        blob = spliced(good, random)
        try:
            refused += not read(forge(bundle, raw=blob))
        except Exception as cause:
            raise AssertionError(f"case {number} of seed {SEED}: {blob[:2000]!r}") from cause
        finally:
            (bundle / "manifest.json").write_bytes(good)
    assert refused > len(numbers(MANIFESTS)) / 2


def test_arrays_whose_bytes_are_odd(bundle, forge):
    """The hashes are made to agree again, so that the reader of arrays itself has to judge."""
    path = bundle / GOLDEN
    good = path.read_bytes()
    refused = 0
    for number, random in cases(numbers(ARRAYS)):
        path.write_bytes(spliced(good, random))
        try:
            refused += not read(forge(bundle))
        except Exception as cause:
            raise AssertionError(f"case {number} of seed {SEED}") from cause
    assert refused > len(numbers(ARRAYS)) / 2


def test_the_unchanged_bundle_is_taken(bundle, forge):
    assert read(bundle)
    assert read(forge(bundle))
