"""Scripts of bundles, joined from modules of the runtimes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from robust_edge_exporters.standalone import standalone

NATIVE = "robust_edge_runtimes.formats.native.engine"
TENSORRT = "robust_edge_runtimes.formats.tensorrt.engine.command_line"


@pytest.mark.parametrize("module", [NATIVE, TENSORRT])
def test_the_script_needs_nothing_of_the_runtimes(module, tmp_path):
    """It is imported where only numpy and the standard library can be."""
    (tmp_path / "script.py").write_text(standalone(module))
    code = "import sys, script; print(*{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = ['.']; {code}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env={})
    assert not {"robust_edge_runtimes", "click", "torch"} & set(done.stdout.split())


def test_each_part_stands_once_behind_what_it_needs():
    script = standalone(TENSORRT)
    order = ["class EngineError", "def write_atomic", "class Settings", "def build(", "def open_engine", "def main("]
    assert [script.count(part) for part in order] == [1] * len(order)
    assert sorted(order, key=script.index) == order
    assert "from robust_edge" not in script


def test_what_runs_it_and_what_it_is_for_come_first():
    assert standalone(TENSORRT).startswith('#!/usr/bin/env python3\n"""Build, keep and run the TensorRT engine')
    assert standalone(NATIVE).startswith('"""Compiles the C')


@pytest.mark.parametrize("line", ["from robust_edge_runtimes.core.files import sha256_of as digest"])
def test_a_part_that_renames_what_it_imports_is_refused(line, tmp_path, monkeypatch):
    (tmp_path / "renaming.py").write_text(f'"""A part."""\n\n{line}\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AssertionError, match="renames"):
        standalone("renaming")
