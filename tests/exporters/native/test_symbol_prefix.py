"""Two networks with two prefixes link into one program."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest

from robust_edge_exporters.native import export_native
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.formats.native.engine import symbol_prefix
from tests.exporters.native.networks import Net, answers, need, reference, relative_error

PROGRAM = """
#include "a/model.h"
#include "b/model.h"
#include "a/program.h"
static float in[CATS_INPUT_CHANNELS * CATS_INPUT_HEIGHT * CATS_INPUT_WIDTH], out[CATS_OUTPUTS + DOGS_2_OUTPUTS];
int main(int argc, char **argv) {
    size_t sizes[2];
    void *weights[2] = {read_file(argv[1], &sizes[0]), read_file(argv[argc - 1], &sizes[1])};
    Cats_context *cats = Cats_create(weights[0], sizes[0], 1);
    dogs_2_context *dogs = dogs_2_create(weights[1], sizes[1], 2);
    if (Cats_check(weights[1], sizes[1]) != CATS_OTHER_MODEL || fread(in, sizeof in, 1, stdin) != 1)
        return 1;
    Cats_infer(cats, in, out, 1);
    dogs_2_infer(dogs, in, out + CATS_OUTPUTS, 1);
    fwrite(out, sizeof out, 1, stdout);
    return 0;
}
"""


def exported(folder, channels, prefix):
    """An export of a small network, and the network's file."""
    net = Net(3, 6, 6, seed=channels)
    path = net.save(folder.with_suffix(".onnx"), net.add("Sigmoid", net.conv("input", net.weights(channels, 3, 3, 3))))
    export_native(path, folder, symbol_prefix=prefix)
    return path


def test_two_networks_in_one_program(tmp_path):
    need("cc")
    paths = [exported(tmp_path / "a", 4, "Cats"), exported(tmp_path / "b", 7, "dogs_2")]
    (tmp_path / "main.c").write_text(PROGRAM, encoding="utf-8")
    sources = [str(tmp_path / name) for name in ("main.c", "a/model.c", "b/model.c")]
    command = [
        "cc",
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pthread",
        *sources,
        "-o",
        str(tmp_path / "both"),
        "-lm",
    ]
    subprocess.run(command, check=True)
    image = Net(3, 6, 6).images(1)
    weights = [str(tmp_path / name / "weights.bin") for name in ("a", "b")]
    done = subprocess.run([str(tmp_path / "both"), *weights], input=image.tobytes(), capture_output=True, check=True)
    expected = np.concatenate([reference(path, image)[0] for path in paths])
    assert relative_error(np.frombuffer(done.stdout, np.float32), expected) < 1e-5


def test_the_runtime_and_the_programs_take_any_prefix(tmp_path):
    need("make")
    path, image = exported(tmp_path / "a", 4, "Cats"), Net(3, 6, 6).images(1)
    assert symbol_prefix(tmp_path / "a") == "Cats"
    assert relative_error(answers(tmp_path / "a", image), reference(path, image)) < 1e-5
    subprocess.run(["make", "-s", "-C", str(tmp_path / "a"), "CFLAGS=-O0"], check=True, capture_output=True)
    assert "re_create" not in (tmp_path / "a/model.c").read_text(encoding="utf-8")


def test_the_weights_file_is_the_same_with_any_prefix(tmp_path):
    exported(tmp_path / "a", 4, "Cats")
    exported(tmp_path / "b", 4, "re")
    assert symbol_prefix(tmp_path / "b") == "re"
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    assert (tmp_path / "a/weights.bin").read_bytes() == (tmp_path / "b/weights.bin").read_bytes()


@pytest.mark.parametrize("prefix", ["", "1a", "a-b", "_a", "ä", "a" * 41, "a b"])
def test_what_is_no_identifier_is_refused(prefix, tmp_path):
    with pytest.raises(InputError, match=r"symbol_prefix is .*; give a letter"):
        exported(tmp_path / "a", 4, prefix)


@pytest.mark.parametrize(("prefix", "name"), [("pthread", "pthread_create"), ("timer", "timer_create")])
def test_names_of_the_c_library_are_refused(prefix, name, tmp_path):
    with pytest.raises(InputError, match=f"the name {name}, which the C library or"):
        exported(tmp_path / "a", 4, prefix)
