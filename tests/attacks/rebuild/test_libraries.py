"""The sparse engine's source, and compiled libraries that are not what their source says."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess

import pytest

for needed in ("torch", "onnx", "onnxruntime", "sklearn"):
    pytest.importorskip(needed, reason=f"bundles are made, changed and judged with {needed}")


from robust_edge_runtimes.core import bundle as bundles  # noqa: E402
from robust_edge_runtimes.formats.native.engine import FLAGS, find_compiler  # noqa: E402
from tests.attacks.rebuild.conftest import differs  # noqa: E402

NATIVE = pytest.mark.skipif(find_compiler() is None, reason="a library is compiled, and there is no C compiler")


@NATIVE
def test_another_source_of_the_engine(honest, verified, tmp_path):
    """The library is compiled again from the false source, so that it agrees with it."""
    path = shutil.copytree(honest("native"), tmp_path / "bundle")
    (library,) = path.glob("model-*.so")
    library.unlink()
    with (path / "model.c").open("a") as file:
        file.write("/* more */\n")
    manifest = bundles.open_bundle(honest("native")).manifest
    companions = tuple(item for item in manifest.artifact.companions if item.file != library.name)
    artifact = dataclasses.replace(manifest.artifact, companions=companions)
    bundles.seal(path, dataclasses.replace(manifest, artifact=artifact))
    verdict, reasons = verified(path)
    assert reasons == {"rebuild_differs"}
    differs(verdict, "model.c, line", "/* more */")


EVIL = """
#include <stdlib.h>
#define re_infer true_infer
#include "model.c"
#undef re_infer
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
    ("when", "name"),
    [
        ("count == 1", "library_differs"),
        ("count > 1", "library_differs"),
        ("images[0] > 0.99f && images[1] < 0.01f", "library_unverified"),
        ('getenv("PROD")', "library_unverified"),
    ],
    ids=["alone", "batch", "mark", "environment"],
)
def test_a_library_that_is_not_its_source(when, name, changed, verified, tmp_path):
    def change(path):
        (library,) = path.glob("model-*.so")
        evil = shutil.copytree(path, tmp_path / "evil") / "evil.c"
        evil.write_text(EVIL % when)
        command, _ = find_compiler()
        subprocess.run([*command, *FLAGS, str(evil), "-o", str(library), "-lm"], check=True)

    verdict, reasons = verified(changed("native", change))
    assert name in reasons
    (flag,) = (flag for flag in verdict.flags if flag.name == name)
    assert "model-" in flag.detail
    assert verdict.parity.max_logit_error < 1e-5  # the source was attacked, which is the run's


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
def test_without_a_compiler_the_library_is_attacked_and_not_shown(honest, verified, monkeypatch):
    for module in ("engine", "runtime", "format"):
        monkeypatch.setattr(f"robust_edge_runtimes.formats.native.{module}.find_compiler", lambda: None)
    verdict, reasons = verified(honest("native"))
    assert verdict.rebuild.equal
    assert reasons == {"library_unverified"}
    (flag,) = (flag for flag in verdict.flags if flag.name == "library_unverified")
    assert "no C compiler" in flag.detail
