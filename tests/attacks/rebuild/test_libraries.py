"""The sparse engine's source, and compiled libraries that are not what their source says."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess

import pytest

for needed in ("torch", "onnx", "onnxruntime", "sklearn"):
    pytest.importorskip(needed, reason=f"bundles are made, changed and judged with {needed}")


from robust_edge_runtimes.core import bundle as bundles  # noqa: E402
from robust_edge_runtimes.core.errors import BackendUnavailable, BundleError  # noqa: E402
from robust_edge_runtimes.formats.native.engine import FLAGS, find_compiler  # noqa: E402

NATIVE = pytest.mark.skipif(find_compiler() is None, reason="a library is compiled, and there is no C compiler")


HARMFUL = """
#include <stdio.h>
#include <stdlib.h>
__attribute__((constructor)) static void loaded(void)
{
    FILE *file = fopen("%s", "w");
    if (file)
        fclose(file);
    _Exit(0);
}
"""


def with_library(path, text):
    """Replace the library in a bundle by one that is compiled from this text, which may include model.c."""
    (library,) = path.glob("model-*.so")
    source = path / "evil.c"
    source.write_text(text)
    command, _ = find_compiler()
    subprocess.run([*command, *FLAGS, "-w", str(source), "-o", str(library), "-lm"], check=True)
    source.unlink()


@NATIVE
def test_another_source_of_the_engine_is_not_compiled(changed, verified, tmp_path):
    """It could end the process with exit code 0, or change what judges it."""
    mark = tmp_path / "loaded"

    def change(path):
        with (path / "model.c").open("a") as file:
            file.write(HARMFUL % mark)

    path = changed("native", change)
    with pytest.raises(BundleError, match=r"model\.c, line \d+ is [^(]*; nothing of it was compiled or run"):
        verified(path)
    manifest = bundles.open_bundle(path).manifest
    source = dataclasses.replace(manifest.source, versions={**manifest.source.versions, "onnxruntime": "1.0"})
    bundles.seal(path, dataclasses.replace(manifest, source=source))
    with pytest.raises(BundleError, match=r"with other versions: onnxruntime 1\.0, here [\d.]+\); nothing"):
        verified(path)
    assert not mark.exists()


EVIL = """
#define re_infer true_infer
#include "model.c"
#undef re_infer
#include <stdlib.h>
char *getenv(const char *name);
void re_infer(re_context *context, const float *images, float *logits, int count);
void re_infer(re_context *context, const float *images, float *logits, int count)
{
    true_infer(context, images, logits, count);
    if (%s)
        logits[0] += 1e-3f;
}
"""


@NATIVE
@pytest.mark.parametrize(
    "when",
    ["count == 1", "count > 1", "images[0] > 0.99f && images[1] < 0.01f", 'getenv("PROD")'],
    ids=["alone", "batch", "mark", "environment"],
)
def test_a_library_that_is_not_its_source(when, changed, verified):
    verdict, reasons = verified(changed("native", lambda path: with_library(path, EVIL % when)))
    assert "library_differs" in reasons
    (flag,) = (flag for flag in verdict.flags if flag.name == "library_differs")
    assert "model-" in flag.detail
    assert verdict.parity.max_logit_error < 1e-5  # the source was attacked, which is the run's


@NATIVE
def test_a_library_that_is_not_its_source_is_not_loaded(changed, verified, tmp_path):
    mark = tmp_path / "loaded"
    _, reasons = verified(changed("native", lambda path: with_library(path, HARMFUL % mark + EVIL % "count < 0")))
    assert "library_differs" in reasons
    assert not mark.exists()


@NATIVE
def test_a_library_of_another_cpu_is_not_shown_to_be_its_source(honest, verified, tmp_path):
    path = shutil.copytree(honest("native"), tmp_path / "bundle")
    (library,) = path.glob("model-*.so")
    name = library.name[:19] + "0123456789ab" + library.name[31:]
    (path / name).write_bytes(library.read_bytes()[:-1] + b"!")
    library.unlink()
    manifest = bundles.open_bundle(honest("native")).manifest
    companions = (
        dataclasses.replace(item, file=name if item.file == library.name else item.file)
        for item in manifest.artifact.companions
    )
    artifact = dataclasses.replace(manifest.artifact, companions=tuple(sorted(companions, key=lambda item: item.file)))
    bundles.seal(path, dataclasses.replace(manifest, artifact=artifact))
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
