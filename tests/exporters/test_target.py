from __future__ import annotations

import dataclasses
import re
from importlib import resources

import pytest

from robust_edge_exporters import target
from robust_edge_exporters.formats.table import FORMATS, format_named
from robust_edge_exporters.parity import MIN_AGREEMENT
from robust_edge_exporters.target import target_named, targets
from robust_edge_runtimes.core.errors import InputError
from robust_edge_runtimes.formats import table as executed


def test_every_file_of_the_table_is_a_target_of_its_name():
    folder = resources.files("robust_edge_exporters") / "targets"
    stems = {file.name[: -len(".toml")] for file in folder.iterdir() if file.name.endswith(".toml")}
    assert "x86-cpu" in stems
    assert {row.family for row in targets().values()} == stems
    assert {name for name, row in targets().items() if row.jetpack is None} <= stems


@pytest.mark.parametrize("name", sorted(targets()))
def test_every_target_can_be_written_run_and_judged(name):
    row = target_named(name)
    assert row.name == name
    assert row.format in FORMATS
    assert row.format in executed.FORMATS
    assert row.checked_with in (None, *executed.FORMATS)
    assert (row.opset is None) == (row.format in ("csr", "native"))
    assert (row.made_from is None) == (row.format != "native")
    assert row.made_from is None or target_named(row.made_from).format == "onnx"
    assert set(row.precisions) <= set(MIN_AGREEMENT)
    assert row.limits
    assert all(limit.endswith(".") for limit in row.limits)
    assert all(re.match(r"[A-Za-z0-9_.-]+([><=~!]=?[\d.]+)?$", line) for line in row.requirements)
    assert format_named(row.format).needs


def test_an_opset_above_what_the_target_reads_is_refused(x86):
    with pytest.raises(InputError, match="opset 22 is above what it reads, 21"):
        dataclasses.replace(x86, opset=x86.opset_max + 1)
    assert dataclasses.replace(x86, opset=x86.opset_max).opset == 21


def test_an_unknown_target_brings_the_nearest():
    with pytest.raises(InputError, match=r"unknown target 'x86_cpu'; did you mean 'x86-cpu'\? \(known: .*x86-cpu"):
        target_named("x86_cpu")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("opset = 18", 'opset = "18"', r"bad\.toml\.opset must be a whole number"),
        ("opset = 18", "opset = 99", "above what it reads"),
        ("opset = 18\n", "", "opset, opset_max and ir_version come together"),
        ('["fp32"]', '["fp8"]', "unknown precision of target x86-cpu 'fp8'"),
        ('["fp32"]', '["fp32", "int8"]', "int8 is missing"),
        ('["fp32"]', '["fp32", "fp16"]', "fp16 must say"),
        ('runtime = "ONNX Runtime 1.14 or newer, CPU"\n', "", r"bad\.toml\.runtime is missing"),
        ("opset_max = 21", "opsetmax = 21", "did you mean 'opset_max'"),
    ],
)
def test_a_wrong_row_is_named_by_file_and_field(tmp_path, monkeypatch, old, new, message):
    good = (resources.files("robust_edge_exporters") / "targets" / "x86-cpu.toml").read_text()
    assert old in good
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "bad.toml").write_text(good.replace(old, new, 1))
    monkeypatch.setattr(target.resources, "files", lambda package: tmp_path)
    with pytest.raises(InputError, match=message):
        targets()


def test_an_unknown_format_is_refused():
    with pytest.raises(InputError, match="unknown artifact format 'onx'; did you mean 'onnx'"):
        format_named("onx")


# What DESIGN and NVIDIA's tables say, once more and by hand: opset that is read, exporter, IR, precisions, Python.
JETPACKS = {
    "4.6": (13, "torchscript", 7, ("fp32", "fp16"), "3.6", "8.2"),
    "5.1": (17, "torchscript", 8, ("fp32", "fp16", "int8"), "3.8", "8.5"),
    "6.2": (20, "dynamo", 8, ("fp32", "fp16", "int8"), "3.10", "10.3"),
    "7.2": (24, "dynamo", 9, ("fp32", "fp16", "int8"), "3.12", "10.16"),
}


@pytest.mark.parametrize("version", JETPACKS)
def test_each_jetpack_has_its_own_limits(version):
    row = target_named("jetson-gpu", version)
    found = (row.opset_max, row.exporter, row.ir_version, row.precisions, row.python, row.tensorrt)
    assert found == JETPACKS[version]
    assert row.jetpack == version
    assert target_named(row.name) == row


def test_other_names_of_a_row():
    assert target_named("jetson-cpu") == target_named("arm-cpu")
    assert target_named("jetson-cpu", "4.6").name == "arm-cpu-jp4.6"
    assert target_named("jetson-gpu").jetpack == "6.2"
    assert target_named("jetson-gpu", "6.1") == target_named("jetson-gpu", "6.2.1") == target_named("jetson-gpu")


def test_a_jetpack_that_there_is_not():
    with pytest.raises(InputError, match=r"unknown JetPack of jetson-gpu '5\.0'; did you mean '5\.1'"):
        target_named("jetson-gpu", "5.0")
    with pytest.raises(InputError, match="leave `jetpack` out"):
        target_named("x86-cpu", "5.1")


@pytest.mark.parametrize(
    ("target", "jetpack", "precision", "reason", "nearest"),
    [
        ("jetson-gpu", "4.6", "int8", "no 8-bit arithmetic", "nearest: `precision` fp16"),
        ("nvidia-v100", None, "bf16", "needs Ampere", "nearest: `precision` fp16"),
        ("x86-cpu", None, "int8", "target x86-cpu-int8", "nearest: `precision` fp32"),
        ("x86-cpu-int8", None, "fp32", "target x86-cpu writes fp32", "nearest: `precision` int8"),
        ("nvidia-gpu", None, "fp8", "writes no fp8", "nearest: `precision` int8"),
        ("x86-cpu", None, "fp64", "it runs fp32 only", "nearest: `precision` fp32"),
    ],
)
def test_a_precision_that_cannot_be_is_refused_with_reason_and_nearest(target, jetpack, precision, reason, nearest):
    row = target_named(target, jetpack)
    with pytest.raises(InputError) as caught:
        row.precision(precision)
    text = str(caught.value)
    assert reason in text
    assert nearest in text
    assert "\n" not in text
    assert row.precision(None) == row.precisions[0]
    assert [row.precision(name) for name in row.precisions] == list(row.precisions)


def test_an_opset_can_be_asked_for_within_the_limits():
    row = target_named("jetson-gpu", "4.6")
    with pytest.raises(InputError, match=r"opset 18 is above what it reads, 13 \(TensorRT 8\.2\); nearest: `opset` 13"):
        row.with_opset(18)
    assert (row.with_opset(11).opset, row.with_opset(11).exporter) == (11, "torchscript")
    with pytest.raises(InputError, match="nearest: `opset` 9"):
        row.with_opset(8)
    with pytest.raises(InputError, match="runs no ONNX"):
        target_named("x86-cpu-csr").with_opset(18)
    x86 = target_named("x86-cpu")
    assert [x86.with_opset(opset).ir_version for opset in (13, 18, 19, 21)] == [8, 8, 9, 10]


def test_a_later_opset_asks_for_the_runtime_that_reads_it():
    x86, pinned = target_named("x86-cpu-int8"), target_named("arm-cpu", "5.1")
    for opset, first in ((13, "1.14"), (18, "1.14"), (19, "1.15"), (20, "1.17"), (21, "1.18")):
        row = x86.with_opset(opset)
        assert row.requirements == ("numpy>=1.19", f"onnxruntime>={first}")
        assert row.runtime == f"ONNX Runtime {first} or newer, CPU"
    assert pinned.with_opset(21).requirements == pinned.requirements
    assert pinned.with_opset(21).runtime == pinned.runtime


def test_8_bits_need_an_opset_with_scales_by_channel():
    with pytest.raises(
        InputError, match=r"opset 12 does not support 8-bit weights with a scale per channel; .* `opset` 13"
    ):
        target_named("x86-cpu-int8").with_opset(12).precision(None)
    assert target_named("x86-cpu-int8").with_opset(13).precision("int8") == "int8"
    assert target_named("jetson-gpu", "5.1").with_opset(12).precision("int8") == "int8"  # a cache, beside an fp32 file
    assert target_named("jetson-gpu", "7.2").with_opset(12).precision("fp16") == "fp16"


@pytest.mark.parametrize(
    ("target", "jetpack", "stored"),
    [
        ("jetson-gpu", "4.6", {"fp32": "fp32", "fp16": "fp32"}),
        ("jetson-gpu", "6.2", {"fp32": "fp32", "fp16": "fp32", "int8": "fp32"}),
        ("jetson-gpu", "7.2", {"fp32": "fp32", "fp16": "fp16", "int8": "int8"}),
        ("arm-cpu-int8", None, {"int8": "int8"}),
        ("x86-cpu-sparse", None, {"fp32": "fp32", "fp16": "fp16"}),
    ],
)
def test_what_the_file_holds(target, jetpack, stored):
    row = target_named(target, jetpack)
    assert {precision: row.in_file(precision) for precision in row.precisions} == stored


def test_the_ir_version_is_one_that_can_hold_the_opset():
    onnx = pytest.importorskip("onnx", reason="its table of IR versions")
    for row in targets().values():
        for opset in range(9, (row.opset_max or 0) + 1):
            least = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)], ignore_unknown=True)
            assert row.with_opset(opset).ir_version >= least
