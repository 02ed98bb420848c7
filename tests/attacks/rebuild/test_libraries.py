"""The sparse engine's source, and compiled libraries that are not what their source says."""

from __future__ import annotations

import dataclasses
import shutil

import pytest

for needed in ("torch", "onnx", "onnxruntime", "sklearn"):
    pytest.importorskip(needed, reason=f"bundles are made, changed and judged with {needed}")


from robust_edge_runtimes.core import bundle as bundles  # noqa: E402
from robust_edge_runtimes.core.errors import BackendUnavailable, BundleError  # noqa: E402
from robust_edge_runtimes.formats.native.engine import find_compiler  # noqa: E402
from tests.attacks import libraries  # noqa: E402

NATIVE = pytest.mark.skipif(find_compiler() is None, reason="a library is compiled, and there is no C compiler")


@NATIVE
def test_another_source_of_the_engine_is_not_compiled(changed, verified, tmp_path):
    """It could end the process with exit code 0, or change what judges it."""
    mark = tmp_path / "loaded"

    path = changed("native", libraries.with_source(libraries.HARMFUL % mark))
    with pytest.raises(BundleError, match=r"model\.c, line \d+ is [^(]*; nothing of it was compiled or run"):
        verified(path)
    manifest = bundles.open_bundle(path).manifest
    source = dataclasses.replace(manifest.source, versions={**manifest.source.versions, "onnxruntime": "1.0"})
    bundles.seal(path, dataclasses.replace(manifest, source=source))
    with pytest.raises(BundleError, match=r"with other versions: onnxruntime 1\.0, here [\d.]+\); nothing"):
        verified(path)
    assert not mark.exists()


@NATIVE
@pytest.mark.parametrize("name", libraries.CONDITIONS)
def test_a_library_that_is_not_its_source(name, changed, verified):
    evil = libraries.EVIL % libraries.CONDITIONS[name]
    verdict, reasons = verified(changed("native", libraries.with_library(evil)))
    assert "library_differs" in reasons
    (flag,) = (flag for flag in verdict.flags if flag.name == "library_differs")
    assert "model-" in flag.detail
    assert verdict.parity.max_logit_error < 1e-5  # the source was attacked, which is the run's


@NATIVE
def test_a_library_that_is_not_its_source_is_not_loaded(changed, verified, tmp_path):
    mark = tmp_path / "loaded"
    _, reasons = verified(
        changed("native", libraries.with_library(libraries.HARMFUL % mark + libraries.EVIL % "count < 0"))
    )
    assert "library_differs" in reasons
    assert not mark.exists()


@NATIVE
def test_a_library_of_another_cpu_is_not_shown_to_be_its_source(honest, verified, tmp_path):
    path = shutil.copytree(honest("native"), tmp_path / "bundle")
    name = libraries.of_another_cpu(path)
    verdict, reasons = verified(path)
    assert verdict.rebuild.equal
    assert reasons == {"library_unverified"}
    (flag,) = (flag for flag in verdict.flags if flag.name == "library_unverified")
    assert name in flag.detail
    assert "another CPU" in flag.detail


@NATIVE
def test_without_a_compiler_no_library_is_loaded(honest, verified, monkeypatch):
    for module in ("engine", "format"):
        monkeypatch.setattr(f"robust_edge_runtimes.formats.native.{module}.find_compiler", lambda: None)
    with pytest.raises(
        BackendUnavailable, match=r"no C compiler was found .*; nothing was attacked. rebuild: \d+ files equal"
    ):
        verified(honest("native"))
