from __future__ import annotations

import os
import platform
import stat
from pathlib import Path

import numpy as np
import pytest

from robust_edge_runtimes.core import environment
from robust_edge_runtimes.core.environment import available_cores, machine


def test_facts_are_this_machines():
    found = machine()
    assert found.python == platform.python_version()
    assert found.numpy == np.__version__
    assert found.architecture == platform.machine()
    assert found.cpu
    assert 1 <= found.cores <= (os.cpu_count() or 1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin a process")
def test_cores_are_those_the_process_may_use():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert available_cores() == len(allowed)


def test_cores_without_affinity_are_counted(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nmodel name\t: Cortex: A78 r0\nmodel name\t: other\n", "Cortex: A78 r0"),
        ("cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: EPYC\n", "EPYC (family 25, model 17)"),
        ("processor\t: 0\nModel\t\t: Jetson Orin Nano\n", "Jetson Orin Nano"),
        ("processor\t: 0\n", platform.machine()),
    ],
)
def test_the_cpu_is_named_by_proc(monkeypatch, cpuinfo, expected):
    monkeypatch.setattr(Path, "read_text", lambda self: cpuinfo)
    assert environment._cpu_name() == expected


def test_what_the_system_does_not_tell_is_none(monkeypatch):
    def missing(self):
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setenv("PATH", "")
    found = machine()
    assert (found.governor, found.power_mode) == (None, None)
    assert found.cpu


@pytest.mark.parametrize(
    ("script", "expected"),
    [("printf 'NV Power Mode: 15W\\n2\\n'", "NV Power Mode: 15W 2"), ("exit 1", None), ("printf '\\377'", "\ufffd")],
)
def test_a_jetson_tells_its_power_mode(tmp_path, monkeypatch, script, expected):
    tool = tmp_path / "nvpmodel"
    tool.write_text(f'#!/bin/sh\n[ "$1" = -q ] || exit 9\n{script}\n')
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert machine().power_mode == expected
