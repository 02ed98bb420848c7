from __future__ import annotations

import platform

import pytest

from robust_edge_runtimes.formats.onnx import unfused

FLAGS = "processor : 0\nflags\t\t: fpu sse4_2 avx2 {}\n\nprocessor : 1\nflags\t\t: fpu\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (FLAGS.format("avx512_vnni"), True),
        (FLAGS.format("avx_vnni"), True),
        (FLAGS.format("avx512f"), False),
        ("processor : 0\nFeatures : fp asimd\n", None),
        (None, None),
    ],
    ids=["AVX-512 VNNI", "AVX VNNI", "none", "ARM", "no file"],
)
def test_vnni_is_read_from_cpuinfo(text, expected, tmp_path, monkeypatch):
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(unfused, "Path", lambda name: tmp_path / name.rpartition("/")[2])
    assert unfused.has_vnni() is expected


@pytest.mark.parametrize(("machine", "expected"), [("x86_64", True), ("AMD64", True), ("aarch64", False)])
def test_only_kernels_of_x86_may_saturate(machine, expected, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert unfused.fused_kernels_may_saturate() is expected
