"""An operator or a kernel of the sparse engine is one Python file, one header and one row of a table.

Neither help texts, `doctor` nor the report list operators and kernels. The manifest names the kernel of each layer, and
`unsupported`, from which `check` reports, knows the operator.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import robust_edge_exporters
from robust_edge_exporters.native import unsupported
from tests.commands import COPIED, ROOT
from tests.exporters.native.networks import Net, answers

PACKAGE = Path(robust_edge_exporters.__file__).parent

ABS_PY = '''
"""Abs: absolute value."""

from dataclasses import dataclass

from robust_edge_exporters.native import ir
from robust_edge_exporters.native.builder import names
from robust_edge_exporters.native.operators.elementwise import elementwise


@dataclass(frozen=True)
class Abs(ir.Op):
    """|x|."""

    def calls(self, inputs, output):
        return (elementwise("absolute", inputs[0], output, self.act),)


def absolute(builder, node):
    source = builder.tensor(node, 0)
    builder.append(Abs(*names(node, source)), builder.shapes[source])


ONNX = {"Abs": absolute}
'''

ABS_H = """/* out[c][i] = act(|in[c][i]|). */
#ifndef ROBUST_EDGE_ABSOLUTE_H
#define ROBUST_EDGE_ABSOLUTE_H

#include <math.h>

#include "elementwise.h"

PRIVATE void absolute(const struct job *j, const struct elementwise *e) {
    const int floats = plane_floats(&e->out);
    struct range channels = split_evenly(e->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            struct planes p = channel_planes(j, e, g, c);
            for (int i = 0; i < floats; i++)
                p.out[i] = fabsf(p.in[i]);
            activate(p.out, floats, &e->act);
        }
}

#endif
"""

POINTWISE_PY = '''
"""Kernel `pointwise`: 1x1 convolutions as a plain loop."""

from robust_edge_exporters.native.c_source import c_constant
from robust_edge_exporters.native.geometry import Window
from robust_edge_exporters.native.kernels.convolution import ConvKernel
from robust_edge_exporters.native.tiling import Tiling
from robust_edge_exporters.native.weights import Sections

CHANNELS_MAX = c_constant("conv_pointwise.h", "CHANNELS_MAX")


class ConvPointwise(ConvKernel):
    name = "pointwise"
    family = None

    def suits(self, op, source, output, options):
        return op.window == Window((1, 1)) and op.groups == 1 and source.channels <= CHANNELS_MAX

    def cost(self, op, output):
        return 0

    def tile(self, op, source, output, options):
        return Tiling(output.height, 0, 1, source.channels, (), 0, False, False, (0,), 0, 0)

    def pack(self, packer, op, tiling):
        return Sections(packer.values(op.weight), packer.append(op.bias), None)


KERNEL = ConvPointwise()
'''

POINTWISE_H = """/* out[o][p] = act(bias[o] + residual[o][p] + sum over i of values[o][i] * in[i][p]). */
#ifndef ROBUST_EDGE_CONV_POINTWISE_H
#define ROBUST_EDGE_CONV_POINTWISE_H

#include "conv.h"
#include "values.h"

#define CHANNELS_MAX 64

PRIVATE void conv_pointwise(const struct job *j, const struct conv *c) {
    const re_context *ctx = j->context;
    const value *values = value_section(ctx, c->values);
    const int floats = plane_floats(&c->out), inputs = c->in.channels;
    struct range channels = split_evenly(c->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int o = channels.begin; o < channels.end; o++) {
            size_t plane = (size_t)g * c->out.image + (size_t)o * (size_t)c->out.pitch;
            const float *in = ctx->arena + c->in.offset + (size_t)g * c->in.image;
            float *out = ctx->arena + c->out.offset + plane;
            for (int p = 0; p < floats; p++) {
                float sum = float_section(ctx, c->bias)[o];
                if (c->residual != NO_TENSOR)
                    sum += ctx->arena[c->residual + plane + (size_t)p];
                for (int i = 0; i < inputs; i++)
                    sum += to_float(values[o * inputs + i]) * in[i * c->in.pitch + p];
                out[p] = sum;
            }
            activate(out, floats, &c->act);
        }
}

#endif
"""

EXPORT = """
import sys
from pathlib import Path
import onnx
from robust_edge_exporters.formats.native.export import form
from robust_edge_exporters.native import export_native, unsupported
path = Path(sys.argv[1]) / "model.onnx"
assert unsupported(onnx.load(path)) == []
print(*(form(layer).form for layer in export_native(path, Path(sys.argv[1])).layers))
"""


def extended(folder: Path, files: dict[str, str], table: str, row: str) -> Path:
    """A copy of the exporters with new files in native/ and one row more in `table`; the folder to import it from."""
    copy = shutil.copytree(PACKAGE, folder / PACKAGE.name, ignore=COPIED)
    for name, text in files.items():
        target = copy / "native" / name
        assert not target.exists()
        target.write_text(text, encoding="utf-8")
    path = copy / "native" / table
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next(i for i, line in enumerate(lines) if line.endswith(" = ("))
    path.write_text("\n".join([*lines[: first + 1], f'    "{row}",', *lines[first + 1 :], ""]), encoding="utf-8")
    return folder


def export(package: Path, folder: Path) -> str:
    """Export the network in `folder` with the extended package; returns the kernel of each layer for the manifest."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package), str(ROOT / "runtimes")])}
    command = [sys.executable, "-B", "-c", EXPORT, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def differences(compared: filecmp.dircmp[str]) -> tuple[list[str], list[str]]:
    """Names of new and of changed files."""
    new, changed = list(compared.right_only), list(compared.diff_files)
    for inner in compared.subdirs.values():
        more = differences(inner)
        new, changed = new + more[0], changed + more[1]
    return sorted(new), changed


def test_an_operator_is_one_file_one_header_and_one_row(tmp_path):
    files = {"operators/absolute.py": ABS_PY, "csrc/absolute.h": ABS_H}
    package = extended(tmp_path / "package", files, "operators/table.py", "absolute")
    comparison = filecmp.dircmp(PACKAGE, package / PACKAGE.name, ignore=["__pycache__"])
    assert differences(comparison) == (["absolute.h", "absolute.py"], ["table.py"])
    net = Net(3, 5, 6)
    net.save(tmp_path / "model.onnx", net.add("Clip", net.add("Abs", "input"), "", net.constant(np.float32(0.5))))
    assert [error.operator for error in unsupported(onnx.load(tmp_path / "model.onnx"))] == ["Abs"]
    export(package, tmp_path)
    images = net.images(5) - np.float32(0.5)
    got = answers(tmp_path, images, threads=2)
    assert np.array_equal(got, np.minimum(np.abs(images), np.float32(0.5)).reshape(5, -1))


@pytest.mark.parametrize("channels", [8, 65])
def test_a_kernel_is_one_file_one_header_and_one_row(channels, tmp_path):
    files = {"kernels/conv_pointwise.py": POINTWISE_PY, "csrc/conv_pointwise.h": POINTWISE_H}
    package = extended(tmp_path / "package", files, "kernels/table.py", "conv_pointwise")
    comparison = filecmp.dircmp(PACKAGE, package / PACKAGE.name, ignore=["__pycache__"])
    assert differences(comparison) == (["conv_pointwise.h", "conv_pointwise.py"], ["table.py"])
    net = Net(channels, 5, 6)
    weight, bias = net.weights(channels, channels, 1, 1, density=0.3), net.vector(channels)
    conv = net.add("Conv", "input", net.constant(weight), net.constant(bias))
    net.save(tmp_path / "model.onnx", net.add("Relu", net.add("Add", conv, "input")))
    assert (export(package, tmp_path) == "pointwise") == (channels == 8)  # 65 are more than CHANNELS_MAX
    images = net.images(5)
    sums = np.einsum("oi,nihw->nohw", weight[:, :, 0, 0], images) + bias[:, None, None] + images
    assert np.allclose(answers(tmp_path, images, threads=2), np.maximum(sums, 0).reshape(5, -1), atol=1e-4)
