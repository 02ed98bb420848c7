"""Source of the sparse engine that is not the run's, and compiled libraries that are not what their source says."""

from __future__ import annotations

import dataclasses
import subprocess

from robust_edge_runtimes.core import bundle as bundles
from robust_edge_runtimes.formats.native.engine import FLAGS, find_compiler

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
"""Leaves a mark and ends the process that loads it with exit code 0; % the mark's path."""
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
CONDITIONS = {
    "alone": "count == 1",
    "batch": "count > 1",
    "mark": "images[0] > 0.99f && images[1] < 0.01f",
    "environment": 'getenv("PROD")',
}
"""When the library of `EVIL % condition` computes something else."""


def with_source(text):
    """More source at the end of model.c."""

    def change(path):
        with (path / "model.c").open("a") as file:
            file.write(text)

    return change


def with_library(text):
    """Another library in place of the compiled one, made from this text, which may include model.c."""

    def change(path):
        (library,) = path.glob("model-*.so")
        source = path / "evil.c"
        source.write_text(text)
        command, _ = find_compiler()
        subprocess.run([*command, *FLAGS, "-w", str(source), "-o", str(library), "-lm"], check=True)
        source.unlink()

    return change


def of_another_cpu(path):
    """Rename the library as one of another CPU, change its last byte, and seal the bundle again; returns its name."""
    (library,) = path.glob("model-*.so")
    name = library.name[:19] + "0123456789ab" + library.name[31:]
    (path / name).write_bytes(library.read_bytes()[:-1] + b"!")
    manifest = bundles.open_bundle(path).manifest
    library.unlink()
    companions = (
        dataclasses.replace(item, file=name if item.file == library.name else item.file)
        for item in manifest.artifact.companions
    )
    artifact = dataclasses.replace(manifest.artifact, companions=tuple(sorted(companions, key=lambda item: item.file)))
    bundles.seal(path, dataclasses.replace(manifest, artifact=artifact))
    return name
