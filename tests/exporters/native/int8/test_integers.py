"""The generated C computes the integers of the reference, bit for bit, on every instruction set."""

from __future__ import annotations

import itertools
import platform
import subprocess

import numpy as np
import pytest

from robust_edge_exporters.native import Options, export_native
from robust_edge_exporters.native.importer import import_onnx
from robust_edge_exporters.native.int8 import reference
from robust_edge_exporters.native.int8.ops import QuantConv
from robust_edge_exporters.native.int8.quantise import prepared, quantise, ranged_tensors
from robust_edge_runtimes.formats.native.engine import cpu
from tests.exporters.native.networks import Net, answers, need
from tests.exporters.native.test_kernels import WHOLE, corners, geometries
from tests.exporters.native.test_portability import SANITIZE, STRICT, predict, skip_without_sanitizers

PLANES = [(1, 1), (4, 4), (7, 7), (8, 8), (9, 13), (6, 16), (5, 32), (3, 67)]
CHANNELS = 6
X86 = {
    "avx512-vnni": (("-mavx512f", "-mavx512bw", "-mavx512vnni"), "avx512_vnni"),
    "avx512": (("-mavx512f", "-mavx512bw"), "avx512bw"),
    "avx-vnni": (("-mavx2", "-mavxvnni"), "avx_vnni"),
    "avx2": (("-mavx2",), "avx2"),
    "ssse3": (("-mssse3",), "ssse3"),
    "sse2": ((), "sse2"),
}
ARM = {"i8mm": "-march=armv8.6-a", "dotprod": "-march=armv8.2-a+dotprod", "neon": "-march=armv8-a"}


def mixed(tensors):
    """Ranges that differ from tensor to tensor, so that none has the scale and the zero of another."""
    numbers = np.random.default_rng(0)
    return {name: (-numbers.uniform(1, 4), numbers.uniform(1, 4)) for name in sorted(tensors)}


def convolutions(net, source, shape):
    """Convolutions of a tensor of a shape, of every geometry, with groups and densities in turns."""
    channels = shape[0]
    turns = itertools.cycle(itertools.product((1, 2, channels), (0.1, 0.4, 1)))
    for kernel, attributes in itertools.islice(geometries(*shape[1:]), 0, None, 7):
        group, density = next(turns)
        weight = net.weights(channels + group * (group == 2), channels // group, *kernel, density=density)
        yield net.conv(source, weight[: len(weight) // group * group], group=group, **attributes)


def pools(net, source):
    window = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)}
    yield net.add("MaxPool", source, strides=(2, 2), **window)
    yield net.add("AveragePool", source, count_include_pad=1, **window)
    yield net.add("AveragePool", source, ceil_mode=1, strides=(2, 1), **window)


def sweep(net):
    """Outputs of every geometry on all planes."""
    stem = net.conv("input", net.weights(CHANNELS, 2, 1, 1))
    for plane in PLANES:
        x = net.add("MaxPool", stem, **corners(plane))
        yield from convolutions(net, x, (CHANNELS, *plane))
        yield from pools(net, x)


def stems(net):
    """Filters over one to three channels, at both strides, with and without padding."""
    stem = net.conv("input", net.weights(3, 2, 1, 1))
    for channels, plane, kernel, stride, pads in [
        (1, (9, 13), (3, 3), 1, (1, 1, 1, 1)),
        (2, (16, 20), (5, 3), 2, (2, 0, 1, 1)),
        (3, (16, 20), (7, 7), 2, (3, 3, 3, 3)),
        (3, (9, 13), (3, 3), 1, (1, 1, 1, 1)),
        (3, (3, 67), (1, 2), 2, (0, 0, 0, 0)),
    ]:
        x = net.add("MaxPool", stem, **corners(plane))
        if channels < 3:
            x = net.conv(x, net.weights(channels, 3, 1, 1))
        yield net.conv(x, net.weights(6, channels, *kernel), strides=(stride, stride), pads=pads)


def rows(net):
    """Filters over planes whose rows are nearly whole units, and over a small plane, with residuals."""
    stem = net.conv("input", net.weights(24, 2, 1, 1))
    for plane, kernel, group, stride in [
        ((14, 14), (3, 3), 1, 1),
        ((9, 28), (3, 3), 2, 1),
        ((5, 12), (2, 5), 1, 1),
        ((3, 59), (3, 3), 1, 1),
        ((9, 9), (3, 3), 3, 1),
        ((7, 7), (7, 3), 1, 1),
        ((13, 28), (3, 3), 2, 2),
        ((6, 55), (5, 4), 1, 2),
        ((14, 14), (5, 3), 1, 2),
    ]:
        x = net.add("MaxPool", stem, **corners(plane))
        pads, strides = [(size - 1) // 2 for size in kernel] + [size // 2 for size in kernel], (stride, stride)
        y = net.conv(x, net.weights(24, 24 // group, *kernel, density=0.1), group=group, pads=pads, strides=strides)
        x = net.add("MaxPool", x, kernel_shape=(1, 1), strides=strides)
        yield net.add("HardSwish", net.add("Add", y, x))


def branches(net):
    """Residuals, tables and broadcasts of several tiles and words."""
    image = net.add("MaxPool", "input", **corners((16, 20)))
    x = net.add("Relu", net.conv(image, net.weights(16, 2, 3, 3), pads=(1, 1, 1, 1)))
    y = net.conv(x, net.weights(16, 16, 3, 3, density=0.3), pads=(1, 1, 1, 1))
    x = net.add("HardSwish", net.add("Add", y, x))
    gate = net.add("Sigmoid", net.conv(net.add("GlobalAveragePool", x), net.weights(16, 16, 1, 1)))
    yield net.add("Mul", x, gate)
    far = net.constant(np.float32([200, -200, 1e5, -1e5, 1, -1, 0, 0]))  # of which 16 bits are too few
    yield net.add("Conv", x, net.constant(100 * net.weights(8, 16, 1, 1)), far)
    y = net.add("Concat", net.add("LeakyRelu", y, alpha=0.2), x, axis=1)
    yield net.add("Add", net.conv(y, net.weights(9, 32, 5, 5, density=0.2)), net.conv(y, net.weights(9, 32, 5, 5)))
    flat = net.add("Flatten", x)
    yield net.add("Gemm", flat, net.constant(net.weights(16 * 16 * 20, 3, density=0.1)))
    hidden = net.add("Relu", net.add("Gemm", flat, net.constant(net.weights(16 * 16 * 20, 70, density=0.01))))
    for outputs in (1, 5):
        yield net.add("Gemm", hidden, net.constant(net.weights(70, outputs, density=0.02)))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folder of an export, images, and the logits of the reference."""
    folder, net = tmp_path_factory.mktemp("int8"), Net(2, *WHOLE)
    path, images = net.save(folder / "model.onnx", *sweep(net), *stems(net), *rows(net), *branches(net)), net.images(3)
    graph = prepared(import_onnx(path))
    ranges = mixed(ranged_tensors(graph))
    export = export_native(path, folder, weights="int8", ranges=ranges, options=Options(images=2))
    assert {layer.kernel for layer in export.layers} == {
        "blocks",
        "rows",
        "columns",
        "stem",
        "quads",
        "codes",
        "depthwise",
    }
    matrix_products = [layer.kernel for layer in export.layers][-4:]
    assert set(matrix_products) == {"codes", "blocks"}
    integers = quantise(graph, ranges)
    assert {op.requantisation.wide for op in integers.graph.ops if isinstance(op, QuantConv)} == {False, True}
    expected = reference.run(integers, images)
    assert len(np.unique(expected)) > 240
    return folder, images, expected


@pytest.mark.parametrize("form", [*X86, "scalar"])
def test_every_instruction_set_computes_the_integers_of_the_reference(form, exported):
    flags, feature = X86.get(form, (("-DRE_SCALAR",), ""))
    if form in X86 and (platform.machine() != "x86_64" or f" {feature}" not in cpu()):
        pytest.skip(f"this CPU has no {feature}")
    folder, images, expected = exported
    got = answers(folder, images, threads=2, flags=("-O1", *flags))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("form", ARM)
def test_aarch64_computes_the_integers_of_the_reference_under_emulation(form, exported, tmp_path):
    need("aarch64-linux-gnu-gcc")
    need("qemu-aarch64")
    folder, images, expected = exported
    sources = [str(folder / "predict.c"), str(folder / "model.c")]
    command = ["aarch64-linux-gnu-gcc", *STRICT, "-O1", ARM[form], "-static", *sources, "-o", str(tmp_path / "predict")]
    done = subprocess.run([*command, "-lm"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    got = predict(tmp_path / "predict", folder, images[:1], emulator=("qemu-aarch64", "-cpu", "max"))
    np.testing.assert_array_equal(got.astype(np.float32), expected[:1])


def test_sanitizers_find_nothing(exported, tmp_path):
    cc = "gcc"
    need(cc)
    skip_without_sanitizers(cc, tmp_path)
    folder, images, expected = exported
    sources = [str(folder / "predict.c"), str(folder / "model.c")]
    subprocess.run(
        [cc, *STRICT, *SANITIZE, "-march=native", *sources, "-o", str(tmp_path / "predict"), "-lm"], check=True
    )
    np.testing.assert_array_equal(predict(tmp_path / "predict", folder, images).astype(np.float32), expected)
