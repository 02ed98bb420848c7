"""The same logits from every compiler and instruction set, without a warning, a bad access or undefined behaviour."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from robust_edge_exporters.native import Options, export_native
from robust_edge_exporters.native.kernels.table import KERNELS
from robust_edge_exporters.native.operators.conv import Conv
from robust_edge_exporters.native.operators.linear import Linear
from robust_edge_runtimes.formats.native.engine import Network
from tests.exporters.native.networks import Net, build, need, reference, relative_error

ON_X86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="an x86 instruction set")
CHECKS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SANITIZE = ("-O0", *CHECKS)  # from -O1 on, compilers unroll, which takes many times as long
BUILDS = [
    pytest.param("gcc", ("-O3", "-march=native"), id="gcc"),
    pytest.param("clang", ("-O3", "-march=native"), id="clang"),
    pytest.param("gcc", ("-O2", "-mavx2", "-mfma"), marks=ON_X86, id="gcc-avx2"),
    pytest.param("clang", ("-O2", "-mavx2", "-mfma"), marks=ON_X86, id="clang-avx2"),
    pytest.param("gcc", ("-O2",), id="gcc-baseline"),
    pytest.param("clang", ("-O2",), id="clang-baseline"),
    pytest.param("gcc", ("-O2", "-DRE_SCALAR"), id="gcc-scalar"),
    pytest.param("clang", ("-O2", "-DRE_SCALAR"), id="clang-scalar"),
    pytest.param("gcc", (*SANITIZE, "-march=native"), id="gcc-sanitizers"),
    pytest.param("clang", SANITIZE, id="clang-sanitizers"),
    pytest.param("gcc", (*SANITIZE, "-DRE_SCALAR"), id="scalar-sanitizers"),
]
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-pthread")


def by_columns(net, source):
    """Features of an input of 20 by 18 pixels in rows of 32, of 16, and of 8 and 7, which share units in pairs."""
    same = {"pads": (1, 1, 1, 1)}
    wide = net.conv(source, net.weights(6, 8, 1, 1), pads=(0, 7, 0, 7))
    wide = net.add("Relu", net.conv(wide, net.weights(8, 6, 3, 3, density=0.3), **same))
    square = net.conv(source, net.weights(16, 8, 5, 3))
    square = net.add("HardSwish", net.conv(square, net.weights(16, 16, 3, 3, density=0.3), **same))
    two = square
    for density in (1, 0.5, 0.7):
        weight = net.weights(16, 1, 3, 3, density=density)
        two = net.add("Relu", net.conv(two, weight, group=16, strides=(2, 2), **same))
    half = net.conv(square, net.weights(30, 16, 3, 3, density=0.3), strides=(2, 2), **same)
    half = net.add("Relu", net.add("Add", net.conv(half, net.weights(30, 30, 3, 3, density=0.3), **same), half))
    half = net.add("LeakyRelu", net.conv(half, net.weights(9, 30, 3, 3, density=0.3), **same), alpha=0.1)
    seven = net.conv(source, net.weights(12, 8, 2, 1), strides=(3, 3), pads=(0, 1, 0, 2))
    seven = net.add("Relu", net.conv(seven, net.weights(11, 12, 3, 3, density=0.3), **same))
    return [net.add("GlobalAveragePool", x) for x in (wide, square, two, half, seven)]


def branchy(net):
    """A small network that uses every kernel: packed, strided, in place, by strips, columns, taps, depthwise, dense."""
    same = {"pads": (1, 1, 1, 1)}
    x = net.add(
        "Relu", net.conv(net.add("Sub", "input", net.constant(np.float32(0.5))), net.weights(8, 3, 3, 3), **same)
    )
    before = x
    y = net.add("Relu", net.conv(x, net.weights(24, 8, 1, 1, density=0.3)))
    y = net.add("HardSwish", net.conv(y, net.weights(24, 1, 3, 3), group=24, strides=(2, 2), **same))
    y = net.conv(y, net.weights(24, 1, 3, 3, density=0.5), group=24, **same)
    y = net.conv(y, net.weights(16, 24, 3, 3, density=0.2), **same)
    x = net.add("Relu", net.add("Add", y, net.conv(x, net.weights(16, 8, 1, 1, density=0.4), strides=(2, 2))))
    columns = by_columns(net, before)
    x = net.add("MaxPool", x, kernel_shape=(3, 3), strides=(2, 2), **same)
    x = net.add("Relu", net.conv(x, net.weights(32, 16, 3, 3, density=0.4), **same))
    x = net.add("Concat", x, net.add("AveragePool", x, kernel_shape=(3, 3), **same), axis=1)
    x = net.add("Sigmoid", net.conv(x, net.weights(20, 64, 3, 3, density=0.1), strides=(2, 2), **same))
    x = net.add("Flatten", net.add("Concat", net.add("GlobalAveragePool", x), *columns, varied(net, "input"), axis=1))
    return net.add("Gemm", x, net.constant(net.weights(85, 10, density=0.2)), net.constant(net.vector(10)))


def varied(net, source):
    """Features of an input through the operators that move, resize and normalise pixels."""
    x = net.conv(source, net.weights(8, 3, 3, 3), pads=(1, 1, 1, 1))
    x = net.add("Mul", x, net.add("Sigmoid", x))
    _, height, width = net.shape
    for sizes, axes in (([0, 2, 4, height, width], (0, 2, 1, 3, 4)), ([0, height, width, 8], (0, 3, 1, 2))):
        x = net.add("Transpose", net.add("Reshape", x, net.constant(np.array(sizes))), perm=axes)
        x = net.add("Reshape", x, net.constant(np.array([0, 8, height, width])))
    x = net.add("Pad", x, net.constant(np.array([0, 0, 2, 1, 0, 0, 1, 3])), mode="reflect")
    x = net.add("PRelu", x, net.constant(net.vector(8).reshape(8, 1, 1)))
    x = net.add("Transpose", x, perm=(0, 2, 3, 1))
    x = net.add("LayerNormalization", x, net.constant(net.vector(8)), net.constant(net.vector(8)), axis=-1)
    x = net.add("Transpose", net.add("Erf", net.add("MatMul", x, net.constant(net.weights(8, 9)))), perm=(0, 3, 1, 2))
    x = net.add("InstanceNormalization", x, net.constant(net.vector(9)), net.constant(net.vector(9)))
    kernel = net.constant(net.weights(9, 5, 3, 3, density=0.5))
    x = net.add("ConvTranspose", x, kernel, strides=(2, 2), pads=(1, 1, 1, 1))
    x = net.add("Resize", x, "", net.constant(np.float32([1, 1, 0.7, 1.3])), mode="linear")
    return net.add("ReduceMax", x, net.constant(np.array([2, 3])))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Folder of an export, five images, their logits."""
    folder, net = tmp_path_factory.mktemp("native"), Net(3, 20, 18)
    path, images = net.save(folder / "model.onnx", branchy(net)), net.images(5)
    export = export_native(path, folder, options=Options(block_bytes=4096, join_bytes=0))
    assert "expand_depthwise(j" in (folder / "model.c").read_text(encoding="utf-8")
    floats = {kernel.name for kernel in KERNELS if kernel.operator in (Conv, Linear)}
    assert {layer.kernel for layer in export.layers} == floats
    return folder, images, reference(path, images)


def predict(program, folder, images, *, emulator=(), threads=2):
    """Logits that a built predict program prints."""
    command = [*emulator, str(program), str(folder / "weights.bin"), str(threads)]
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1"}
    done = subprocess.run(command, input=images.tobytes(), capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return np.array([[float(x) for x in line.split()] for line in done.stdout.decode().splitlines()])


@pytest.mark.parametrize(("cc", "flags"), BUILDS)
def test_builds_agree(cc, flags, exported, tmp_path):
    need(cc)
    folder, images, expected = exported
    if "-fsanitize=address,undefined" in flags:
        skip_without_sanitizers(cc, tmp_path)
    model = str(tmp_path / "model.o")
    commands = [["-c", str(folder / "model.c"), "-o", model]]
    commands += [[str(folder / f"{name}.c"), model, "-o", str(tmp_path / name), "-lm"] for name in ("predict", "bench")]
    for command in commands:
        done = subprocess.run([cc, *STRICT, *flags, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert relative_error(predict(tmp_path / "predict", folder, images), expected) < 1e-5
    bench = [str(tmp_path / "bench"), str(folder / "weights.bin"), "2", "6", "3"]
    assert "p50" in subprocess.run(bench, capture_output=True, text=True, check=True).stdout


@ON_X86
def test_compilers_keep_sums_in_registers(exported, tmp_path):
    """A loop over sums that stays a loop has its sums in memory, and a single multiply-add for all of them."""
    need("gcc")
    need("clang")
    found = {}
    for cc in ("gcc", "clang"):
        command = [cc, "-std=c99", "-O3", "-mavx512f", "-ffp-contract=fast", "-S", str(exported[0] / "model.c")]
        subprocess.run([*command, "-o", str(tmp_path / "model.s")], check=True)
        found[cc] = len(re.findall(r"^\s*vfmadd\S*ps\s", (tmp_path / "model.s").read_text(encoding="utf-8"), re.M))
    assert found["clang"] > 0.8 * found["gcc"] > 100


@pytest.mark.parametrize(("cc", "flags"), BUILDS)
def test_a_nan_stays(cc, flags, tmp_path):
    """Through both bounds of a Clip, in each instruction set's own way; its neighbours stay what they are."""
    need(cc)
    if "-fsanitize=address,undefined" in flags:
        skip_without_sanitizers(cc, tmp_path)
    net = Net(1, 4, 4)
    bounds = [net.constant(np.float32(bound)) for bound in (0, 1)]
    doubled = net.add("Conv", "input", net.constant(np.full((2, 1, 1, 1), 2, np.float32)))
    export_native(net.save(tmp_path / "model.onnx", net.add("Clip", doubled, *bounds)), tmp_path)
    sources = [str(tmp_path / "model.c"), str(tmp_path / "predict.c")]
    subprocess.run([cc, *STRICT, *flags, *sources, "-o", str(tmp_path / "predict"), "-lm"], check=True)
    image = np.linspace(-1, 1, 16, dtype=np.float32).reshape(1, 1, 4, 4)
    image[0, 0, 1, 2] = np.nan
    expected = np.tile(np.clip(2 * image.ravel(), 0, 1), 2)
    np.testing.assert_allclose(predict(tmp_path / "predict", tmp_path, image)[0], expected, atol=1e-6)


def test_what_cannot_be_written_is_an_error(exported, tmp_path):
    full_device = Path("/dev/full")
    if not full_device.exists():
        pytest.skip("no device that is full")
    folder, images, _ = exported
    program = tmp_path / "predict"
    sources = [str(folder / "predict.c"), str(folder / "model.c")]
    subprocess.run(["cc", "-std=c99", "-pthread", *sources, "-o", str(program), "-lm"], check=True)
    with full_device.open("wb") as full:
        command = [str(program), str(folder / "weights.bin")]
        done = subprocess.run(command, input=images.tobytes(), stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr[:16]) == (1, b"standard output:")


def skip_without_sanitizers(cc, folder):
    (folder / "empty.c").write_text("int main(void) { return 0; }\n", encoding="utf-8")
    command = [cc, "-fsanitize=address,undefined", str(folder / "empty.c"), "-o", str(folder / "empty")]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip(f"{cc} has no sanitizer libraries")


def test_aarch64_agrees_under_emulation(exported, tmp_path):
    need("aarch64-linux-gnu-gcc")
    need("qemu-aarch64")
    folder, images, expected = exported
    sources = [str(folder / "predict.c"), str(folder / "model.c")]
    command = ["aarch64-linux-gnu-gcc", *STRICT, "-O2", "-static", *sources, "-o", str(tmp_path / "predict"), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    got = predict(tmp_path / "predict", folder, images, emulator=("qemu-aarch64",))
    assert relative_error(got, expected) < 1e-5


def test_make_builds_everything(exported, tmp_path):
    need("make")
    folder, images, expected = exported
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    subprocess.run(["make", "-s", "-C", str(tmp_path), "CFLAGS=-O1"], check=True, capture_output=True)
    assert {"libmodel.so", "libmodel.a", "bench", "predict"} <= {file.name for file in tmp_path.iterdir()}
    assert relative_error(predict(tmp_path / "predict", tmp_path, images), expected) < 1e-5


def test_what_is_no_number_of_threads_is_an_error(exported, tmp_path):
    folder, program = exported[0], str(tmp_path / "bench")
    sources = [str(folder / "bench.c"), str(folder / "model.c")]
    subprocess.run(["cc", "-std=c99", "-pthread", *sources, "-o", program, "-lm"], check=True)
    for given in ("0", "-1", "x", "2x", "", "9" * 30):
        command = [program, str(folder / "weights.bin"), given]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"argument 2 is '{given}'; give a whole number" in done.stderr


def test_a_cut_image_is_an_error(exported, tmp_path):
    folder, images, _ = exported
    sources = [str(folder / "predict.c"), str(folder / "model.c")]
    subprocess.run(["cc", "-std=c99", "-pthread", *sources, "-o", str(tmp_path / "predict"), "-lm"], check=True)
    command = [str(tmp_path / "predict"), str(folder / "weights.bin")]
    done = subprocess.run(command, input=images.tobytes()[:-4], capture_output=True, check=False)
    assert (done.returncode, len(done.stdout.splitlines())) == (1, 4)
    assert b"cut short" in done.stderr


COUNTER = """
#include "model.h"
#include <stdio.h>
#include <stdlib.h>
#include "program.h"
static int calls;
void *__real_malloc(size_t);
void *__real_calloc(size_t, size_t);
int __real_posix_memalign(void **, size_t, size_t);
void *__wrap_malloc(size_t n) { return calls++, __real_malloc(n); }
void *__wrap_calloc(size_t m, size_t n) { return calls++, __real_calloc(m, n); }
int __wrap_posix_memalign(void **p, size_t a, size_t n) { return calls++, __real_posix_memalign(p, a, n); }
static float in[9 * RE_INPUT_CHANNELS * RE_INPUT_HEIGHT * RE_INPUT_WIDTH], out[9 * RE_OUTPUTS];
int main(int argc, char **argv) {
    void *weights;
    re_context *context = create_or_explain(argv[argc - 1], &weights, 2);
    int before = calls;
    if (context == NULL)
        return 1;
    re_infer(context, in, out, 1);
    re_infer(context, in, out, 9);
    printf("%d %d", before, calls - before);
    re_destroy(context);
    free(weights);
    return 0;
}
"""


def test_inference_allocates_nothing(exported, tmp_path):
    need("gcc")
    folder, _, _ = exported
    (tmp_path / "counter.c").write_text("#define _POSIX_C_SOURCE 200809L\n" + COUNTER, encoding="utf-8")
    wraps = ("malloc", "calloc", "posix_memalign")
    sources = [str(tmp_path / "counter.c"), str(folder / "model.c"), f"-I{folder}"]
    command = ["gcc", *STRICT, "-O1", *sources, *(f"-Wl,--wrap={name}" for name in wraps)]
    subprocess.run([*command, "-o", str(tmp_path / "counter"), "-lm"], check=True)
    command = [str(tmp_path / "counter"), str(folder / "weights.bin")]
    before, during = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert before >= 3  # the file, the context, its memory: the count works
    assert during == 0


def test_contexts_of_several_threads_do_not_touch_each_other(exported):
    folder, images, _ = exported
    library = build(folder)
    networks = [Network(library, folder / "weights.bin", threads=1 + k % 2) for k in range(4)]
    alone = [networks[0].infer(image[None]) for image in images]
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda network: [network.infer(image[None]) for image in images], networks * 20)
        assert all(np.array_equal(answer, alone) for answer in answers)
    for network in networks:
        network.close()


@pytest.mark.parametrize("cc", ["gcc", "clang"])
@pytest.mark.parametrize("side", [16, 32])
def test_depthwise_layers_of_whole_units_compile_without_a_warning(tmp_path, cc, side):
    """As the Makefile compiles: where no units are left over, gcc looks for overflow in the loop over them."""
    need(cc)
    net = Net(3, side, side)
    path = net.save(tmp_path / "model.onnx", net.conv("input", net.weights(3, 1, 3, 3), group=3, pads=(1, 1, 1, 1)))
    assert export_native(path, tmp_path).layers[0].kernel == "depthwise"
    command = [cc, *STRICT, "-O3", "-march=native", "-c", str(tmp_path / "model.c"), "-o", str(tmp_path / "model.o")]
    subprocess.run(command, check=True)
