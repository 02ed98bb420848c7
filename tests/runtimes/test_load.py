from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import BackendUnavailable, BundleError
from robust_edge_runtimes.core.runtime import BaseRuntime
from robust_edge_runtimes.formats import table
from robust_edge_runtimes.load import load

pytest.importorskip("onnxruntime", reason="the bundles of these tests run on onnxruntime")


@pytest.mark.parametrize("kind", [str, Path, open_bundle])
def test_a_path_or_an_opened_bundle_gives_an_open_runtime(sealed, linear, golden, kind):
    with load(kind(sealed)) as model:
        assert np.allclose(model.infer(golden.clean), linear.logits(golden.clean), atol=1e-5)


def test_classify_gives_a_name_of_the_manifest(sealed, golden):
    with load(sealed) as model:
        for k in range(4):
            label, p = model.classify(golden.clean[k])
            assert label == ("north", "east", "south", "west")[golden.clean_logits[k].argmax()]
            assert 0.25 <= p <= 1


def test_a_damaged_bundle_never_reaches_a_backend(bundle, monkeypatch):
    (bundle / "labels.txt").write_text("other\n")
    monkeypatch.setattr(table, "FORMATS", {})
    with pytest.raises(BundleError, match=r"labels\.txt"):
        load(bundle)


def test_an_artifact_of_unknown_format_is_not_available_here(bundle, forge):
    forge(bundle, lambda value: value["artifact"].update(format="onxn"))
    with pytest.raises(BackendUnavailable, match="unknown artifact format 'onxn'; did you mean 'onnx'"):
        load(bundle)


def test_every_registered_runtime_resolves():
    for name in table.FORMATS:
        assert issubclass(table.runtime_class(name), BaseRuntime)
