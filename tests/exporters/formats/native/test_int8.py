"""Bundles of the targets that compute with integers."""

from __future__ import annotations

import platform
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from robust_edge_exporters.artifact import ExportSettings
from robust_edge_exporters.bundle import export_bundle
from robust_edge_exporters.formats.native.contents import contents_of
from robust_edge_exporters.formats.native.export import write_dense
from robust_edge_exporters.native.importer import import_onnx
from robust_edge_exporters.native.int8 import reference
from robust_edge_exporters.native.int8.calibrate import ranges
from robust_edge_exporters.native.int8.quantise import prepared, quantise, ranged_tensors
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import ExportError, InputError
from robust_edge_runtimes.formats.native import engine
from robust_edge_runtimes.load import load
from tests.exporters.conftest import SHAPE

pytestmark = pytest.mark.skipif(engine.find_compiler() is None, reason="there is no C compiler")
TARGET = "arm-cpu-sparse-int8" if platform.machine() == "aarch64" else "x86-cpu-sparse-int8"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Libraries of these tests, kept apart from the user's and shared among them."""
    monkeypatch.setenv("ROBUST_EDGE_CACHE", str(tmp_path_factory.getbasetemp() / "engine-cache"))


@pytest.fixture(scope="module")
def bundle(model, images, request_for, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8") / "bundle"
    export_bundle(request_for(model, target=target_named(TARGET), calibration=images), folder)
    return folder


def test_a_bundle_computes_the_integers_of_the_reference(bundle, model, images, tmp_path):
    written = write_dense(model, SHAPE, target_named(TARGET), str(tmp_path), ExportSettings())
    path = Path(tmp_path) / written.file
    graph = prepared(import_onnx(path))
    network = quantise(graph, ranges(onnx.load(path), ranged_tensors(graph), images))
    with load(bundle) as runtime:
        np.testing.assert_array_equal(runtime.infer_all(images), reference.run(network, images))


def test_the_manifest_counts_what_the_file_holds(bundle):
    opened = open_bundle(bundle)
    artifact, layers = opened.manifest.artifact, opened.manifest.layers
    assert (artifact.precision, [layer.form for layer in layers]) == ("int8", ["stem", "quads", "codes"])
    assert contents_of(opened).precision == "int8"
    assert contents_of(opened).sparsity == opened.manifest.sparsity
    assert opened.manifest.sparsity.nonzero == sum(layer.nonzero for layer in layers) > 0


def test_a_bundle_without_blocks_says_how_full_its_blocks_are(bundle):
    (note,) = [note for note in open_bundle(bundle).manifest.notes if "blocks of four" in note]
    percent = int(re.search(r"of which (\d+)% are not zero", note)[1])
    assert 36 < percent < 46, "of a third of the weights 1 / 3 / (1 - (2 / 3)^4) = 41.5%"
    assert "scheme block" in note


def test_a_precision_that_is_not_8_bits_is_refused(model, request_for, tmp_path):
    with pytest.raises(InputError, match="does not support fp32: this row computes with integers"):
        export_bundle(request_for(model, target=target_named(TARGET), precision="fp32"), tmp_path / "bundle")


def test_an_export_without_calibration_images_is_refused(model, request_for, tmp_path):
    with pytest.raises(ExportError, match="training images, and none were given"):
        export_bundle(request_for(model, target=target_named(TARGET)), tmp_path / "bundle")
