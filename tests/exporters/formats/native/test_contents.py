from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from robust_edge_exporters.bundle import write_artifact
from robust_edge_exporters.formats.native.contents import VALUES, contents_of
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.bundle import Bundle
from robust_edge_runtimes.core.errors import BundleError
from robust_edge_runtimes.core.manifest import Artifact

TARGET = target_named("x86-cpu-sparse")


class Stub:
    """The part of a manifest that the format reads; nothing of it is executed, so that no compiler is needed."""

    def __init__(self, written):
        self.layers = written.layers
        self.artifact = Artifact(written.file, written.format, written.precision, "", 0)


HEAD = b"static const struct a b = {"


@pytest.fixture(scope="module")
def written(model, request_for, tmp_path_factory):
    """written(precision) -> (the folder, the export's own description)."""
    known = {}

    def write(precision):
        if precision not in known:
            folder = tmp_path_factory.mktemp("native")
            request = request_for(model, target=TARGET, precision=precision, compile_library=False)
            known[precision] = folder, write_artifact(request, folder).artifact
        return known[precision]

    return write


def read(folder, artifact):
    return contents_of(Bundle(folder, Stub(artifact)))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_file_holds_what_the_export_counted(precision, written):
    folder, artifact = written(precision)
    found = read(folder, artifact)
    assert found.sparsity == artifact.sparsity
    assert found.precision == precision


@pytest.fixture
def copy(written, tmp_path):
    folder, artifact = written("fp32")
    return shutil.copytree(folder, tmp_path / "copy"), artifact


def test_a_weight_that_was_zeroed_in_the_file_counts_no_more(copy):
    folder, artifact = copy
    first = int(VALUES.findall((folder / "model.c").read_text())[1])
    data = bytearray((folder / "weights.bin").read_bytes())
    (value,) = np.frombuffer(data, "<f4", 1, first)
    assert value != 0
    data[first : first + 4] = bytes(4)
    (folder / "weights.bin").write_bytes(data)
    claimed, found = artifact.sparsity.layers, read(folder, artifact).sparsity.layers
    assert found == (claimed[0], dataclasses.replace(claimed[1], nonzero=claimed[1].nonzero - 1), *claimed[2:])


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("weights.bin", lambda data: data[:40], "not a weights file"),
        ("weights.bin", lambda data: b"X" + data[1:], "not a weights file"),
        ("weights.bin", lambda data: data[:8] + b"\0" + data[9:], "not a weights file"),
        ("weights.bin", lambda data: data[:64], "beyond the end"),
        ("model.c", lambda data: data.replace(b", .bias = ", b", .base = ", 1), "layers with weights"),
        ("model.c", lambda data: data.replace(b", .values = ", b", .values = " + b"1" * 5000), "layers with weights"),
        ("model.c", lambda data: HEAD + b".values = 1, .bias = 1, " * 90_000 + b"\n" + data, "layers with weights"),
    ],
    ids=["short", "magic", "version", "cut", "table", "long number", "long line"],
)
def test_other_files_are_refused(name, change, says, copy):
    folder, artifact = copy
    (folder / name).write_bytes(change((folder / name).read_bytes()))
    with pytest.raises(BundleError, match=says):
        read(folder, artifact)
