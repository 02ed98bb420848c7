"""The weights file: its layout, one status for each kind of damage, and no crash whatever it holds."""

from __future__ import annotations

import ctypes
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

from robust_edge_exporters.native import Options, export_native
from robust_edge_exporters.native.weights import coded, padded_to_multiple
from robust_edge_runtimes.formats.native.engine import DamagedError, Network
from tests.attacks.mutations import number_of
from tests.exporters.native.networks import Net, build, need
from tests.exporters.native.test_portability import SANITIZE, branchy, skip_without_sanitizers


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder, net = tmp_path_factory.mktemp("weights"), Net(3, 20, 18)
    export_native(net.save(folder / "model.onnx", branchy(net)), folder)
    return folder, build(folder)


def status(library, data, beside=0):
    """What re_check says of `data`, `beside` bytes after a multiple of 64."""
    functions = ctypes.CDLL(str(library))
    functions.re_status_text.restype = ctypes.c_char_p
    memory = np.zeros(len(data) + 128, np.uint8)
    start = -memory.ctypes.data % 64 + beside
    memory[start : start + len(data)] = np.frombuffer(data, np.uint8)
    found = functions.re_check(ctypes.c_void_p(memory.ctypes.data + start), ctypes.c_size_t(len(data)))
    return functions.re_status_text(found).decode()


def patched(data, offset, value, kind="<I"):
    new = bytearray(data)
    struct.pack_into(kind, new, offset, value)
    return bytes(new)


def test_each_damage_has_its_own_status(exported):
    folder, library = exported
    good = (folder / "weights.bin").read_bytes()
    middle = len(good) // 2
    cases = {
        "ok": good,
        "cut short": good[:-64],
        "not a weights file": b"PK" + good[2:],
        "another format version": patched(good, 8, 1),
        "belongs to another network": patched(good, 24, 1, "<Q"),
        "wrong size": good + bytes(64),
        "damaged": patched(good, middle, struct.unpack_from("<I", good, middle)[0] ^ 1),
    }
    for text, data in cases.items():
        assert text in status(library, data)
    assert "cut short" in status(library, b"")
    assert status(library, good, beside=4) == "ok"
    assert "multiple of 4 bytes" in status(library, good, beside=2)
    assert "other byte order" in status(library, patched(good, 8, 2, ">I"))


def decoded(stream, segments):
    """The positions of each segment, by a reader that shares no code with the writer."""
    found, offset = [], 0

    def number():
        nonlocal offset
        total = 0
        while True:
            total, offset = total + stream[offset], offset + 1
            if stream[offset - 1] < 255:
                return total

    for _ in range(segments):
        positions, last = [], -1
        for _ in range(number()):
            last += number() + 1
            positions.append(last)
        found.append(positions)
    assert offset == len(stream)
    return found


@pytest.mark.parametrize("density", [0, 0.001, 0.1, 1])
def test_coded_segments_read_back(density):
    mask = np.random.default_rng(0).random((7, 2000)) < density
    mask[3] = False
    mask[5, 1999] = True  # gaps of whole 255s and more, counts over 255, empty and full segments
    mask[6, [255, 511]] = True
    stream = coded(mask.sum(axis=1), np.nonzero(mask)[1])
    assert decoded(stream.tolist(), 7) == [np.flatnonzero(row).tolist() for row in mask]


@pytest.mark.parametrize("density", [0, 0.1, 0.5, 0.9, 1])
@pytest.mark.parametrize("positions", [1, 3, 4, 30])
def test_segments_are_padded_to_a_multiple(density, positions):
    kept = np.random.default_rng(positions).random((50, positions)) < density
    filled = padded_to_multiple(kept, 4)
    for before, after in zip(kept, filled, strict=True):
        wanted = -(-before.sum() // 4) * 4
        free = np.flatnonzero(~before)
        added = free[: wanted - before.sum()] if wanted <= positions else []
        assert np.flatnonzero(after).tolist() == sorted([*np.flatnonzero(before), *added])


def test_two_words_that_change_places_are_seen(exported):
    folder, library = exported
    good = bytearray((folder / "weights.bin").read_bytes())
    assert good[64:68] != good[68:72]
    good[64:68], good[68:72] = good[68:72], good[64:68]
    assert "damaged" in status(library, bytes(good))


def test_the_runtime_says_which_file_is_damaged(exported, tmp_path):
    folder, library = exported
    (tmp_path / "weights.bin").write_bytes((folder / "weights.bin").read_bytes()[:1000])
    with pytest.raises(DamagedError, match=r"weights\.bin: the weights file is cut short; export the bundle again"):
        Network(library, tmp_path / "weights.bin")


@pytest.mark.parametrize("weights", ["fp32", "fp16"])
@pytest.mark.parametrize("kernel", [None, "sparse"], ids=["chosen", "sparse"])
def test_damaged_files_never_crash(kernel, weights, tmp_path):
    net = Net(3, 12, 10)
    path = net.save(tmp_path / "model.onnx", branchy(net))
    export_native(path, tmp_path, weights=weights, options=Options(kernel=kernel))
    survives_damage(tmp_path, 600)


def test_damaged_files_of_codes_never_crash(tmp_path):
    net = Net(3, 7, 14)
    x = net.add("HardSwish", net.conv("input", net.weights(16, 3, 3, 3), pads=(1, 1, 1, 1)))  # stem
    x = net.conv(x, net.weights(16, 16, 1, 1))  # quads
    y = net.conv(x, net.weights(16, 16, 3, 3, density=0.1), pads=(1, 1, 1, 1))  # columns
    x = net.add("Relu", net.add("Add", y, x))
    x = net.conv(x, net.weights(16, 1, 3, 3), group=16, pads=(0, 1, 0, 1), strides=(2, 2))  # depthwise
    x = net.conv(x, net.weights(12, 16, 3, 5, density=0.1), pads=(1, 2, 1, 2))  # rows
    x = net.conv(x, net.weights(9, 12, 1, 1, density=0.1))  # blocks
    x = net.add("Gemm", net.add("Flatten", x), net.constant(net.weights(9 * 3 * 7, 8, density=0.05)))  # blocks
    path = net.save(tmp_path / "model.onnx", net.add("Gemm", x, net.constant(net.weights(8, 5))))  # codes
    export = export_native(path, tmp_path, weights="int8", calibration=net.images(4))
    kernels = ["stem", "quads", "columns", "depthwise", "rows", "blocks", "blocks", "codes"]
    assert [layer.kernel for layer in export.layers] == kernels
    survives_damage(tmp_path, 400)


def survives_damage(folder, rounds):
    """Runs a network under the sanitizers with many damaged weights files."""
    need("gcc")
    skip_without_sanitizers("gcc", folder)
    sources = [str(Path(__file__).with_name("fuzz.c")), str(folder / "model.c")]
    command = ["gcc", "-std=c99", *SANITIZE, "-pthread", f"-I{folder}", *sources, "-o", str(folder / "fuzz"), "-lm"]
    subprocess.run(command, check=True)
    command = [str(folder / "fuzz"), str(folder / "weights.bin"), str(number_of(rounds))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) < number_of(rounds)  # some damage is only other numbers; most is refused
