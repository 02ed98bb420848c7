from __future__ import annotations

import dataclasses
import re
from importlib import resources

import pytest

from robust_edge_exporters import registry, target
from robust_edge_exporters.bundle import MAX_LOGIT_ERROR
from robust_edge_exporters.registry import EXPORTERS, exporter
from robust_edge_exporters.target import target_named, targets
from robust_edge_runtimes.errors import InputError
from robust_edge_runtimes.registry import RUNTIMES


def test_every_file_of_the_table_is_a_target_of_its_name():
    folder = resources.files("robust_edge_exporters") / "targets"
    stems = {file.name[: -len(".toml")] for file in folder.iterdir() if file.name.endswith(".toml")}
    assert "x86-cpu" in stems
    assert set(targets()) == stems
    assert list(targets()) == sorted(stems)


@pytest.mark.parametrize("name", sorted(targets()))
def test_every_target_can_be_written_run_and_judged(name):
    row = target_named(name)
    assert row.name == name
    assert row.format in EXPORTERS
    assert row.format in RUNTIMES
    assert row.opset <= row.opset_max
    assert set(row.precisions) <= set(MAX_LOGIT_ERROR)
    assert row.limits
    assert all(limit.endswith(".") for limit in row.limits)
    assert all(re.match(r"[A-Za-z0-9_.-]+([><=~!]=?[\d.]+)?$", line) for line in row.requirements)
    assert callable(exporter(row.format))


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
        ("opset = 18\n", "", r"bad\.toml\.opset is missing"),
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
        exporter("onx")
    assert exporter("onnx") is registry.exporter("onnx")
