"""Each header of the engine compiles alone, with its own includes, and model.c is made of all of them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import robust_edge_exporters.native
from robust_edge_exporters.native.c_source import amalgamate, source, with_defines
from tests.exporters.native.networks import need
from tests.exporters.native.test_portability import ON_X86

CSRC = Path(robust_edge_exporters.native.__file__).with_name("csrc")
STRICT = ("-fsyntax-only", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-std=c99", "-D_POSIX_C_SOURCE=200809L")
MACHINES = [
    pytest.param(("-march=x86-64-v4",), marks=ON_X86, id="avx512"),
    pytest.param(("-DRE_SCALAR", "-DRE_PROFILE"), id="scalar-profile"),
]


def warnings_of(cc, flags, folder):
    """What the compiler says of the headers, each included by an otherwise empty file."""
    files = []
    for header in sorted(CSRC.glob("*.h")):
        files.append(folder / f"{header.stem}.c")
        files[-1].write_text(f'#include "{header}"\nint main(void);\n', encoding="utf-8")
    done = subprocess.run([cc, *STRICT, *flags, *map(str, files)], capture_output=True, text=True, check=False)
    return done.stderr


@pytest.mark.parametrize("cc", ["gcc", "clang"])
@pytest.mark.parametrize("flags", MACHINES)
def test_each_header_compiles_alone(cc, flags, tmp_path):
    need(cc)
    assert warnings_of(cc, flags, tmp_path) == ""


def test_each_header_compiles_alone_for_aarch64(tmp_path):
    need("aarch64-linux-gnu-gcc")
    assert warnings_of("aarch64-linux-gnu-gcc", (), tmp_path) == ""


def test_each_header_has_an_include_guard_and_begins_with_what_it_is():
    for header in CSRC.glob("*.h"):
        text = header.read_text(encoding="utf-8")
        guard = f"ROBUST_EDGE_{header.stem.upper()}_H"
        assert text.startswith("/* "), header
        assert f"*/\n#ifndef {guard}\n#define {guard}\n" in text, header


def test_the_example_network_is_a_program(tmp_path):
    """The sources as they are, before any network is written into them."""
    need("cc")
    command = [
        "cc",
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pthread",
        str(CSRC / "model.c"),
        str(CSRC / "bench.c"),
    ]
    subprocess.run([*command, "-o", str(tmp_path / "bench"), "-lm"], check=True)


def test_model_c_holds_each_header_once_and_includes_none_but_its_own():
    text = amalgamate({"network.h": '#include "conv_taps.h"\n#include "conv_sparse.h"\nint network;\n'})
    assert text.count('#include "') == text.count('#include "model.h"\n') == 1
    for header in ("vector.h", "conv.h", "phases.h", "conv_taps.h", "conv_sparse.h"):
        assert text.count(source(header).partition("\n")[0]) == 1
    order = [
        text.index(piece)
        for piece in ("#define UNIT 16", "struct conv {", "void conv_taps(", "int network;", "re_infer(")
    ]
    assert order == sorted(order)
    assert "ROBUST_EDGE_CONV_H" not in text


def test_a_define_that_is_not_there_is_our_own_mistake():
    assert with_defines("#define A 1 /* why */\n#define AB 2\n", {"A": "((size_t)7)"}).startswith(
        "#define A ((size_t)7) /* why */\n#define AB 2"
    )
    with pytest.raises(AssertionError, match="0 definitions of B"):
        with_defines("#define A 1\n", {"B": 2})
