"""The comparison with a new export in a second process gives the same result, and none if it cannot decide."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from robust_edge.config.export import GoldenSettings
from robust_edge.export import export_run
from robust_edge.verification import background, new_export
from robust_edge.verification.background import BackgroundRebuild
from robust_edge.verification.new_export import compare_with_run
from robust_edge_exporters.target import target_named
from robust_edge_runtimes.core.bundle import open_bundle
from robust_edge_runtimes.core.errors import InputError
from tests.commands import forked, running


@pytest.fixture(scope="module")
def bundle(sparse_run, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundles") / "csr"
    export_run(sparse_run, target_named("x86-cpu-csr"), path, golden=GoldenSettings(images=20, steps=1))
    return path


def test_the_answer_is_that_of_this_process(bundle, sparse_run):
    """The other process has another order of hashes, too."""
    (bundle / "added").write_text("")
    here = compare_with_run(open_bundle(bundle), sparse_run, sparse_run.load_model(), None)
    with BackgroundRebuild(bundle, sparse_run.path, None) as rebuild:
        found = rebuild.result()
        assert not rebuild.running
    assert here.differences == ("added is in the bundle, and no export writes it",)
    assert dataclasses.replace(found, seconds=here.seconds) == here


def test_the_process_names_the_bundle_that_was_given(bundle, sparse_run, monkeypatch, capsys):
    def failing(opened, *_):
        raise InputError(f"{opened.path} is bad")

    monkeypatch.setattr(new_export, "_export", failing)
    monkeypatch.setattr(background, "end_with", lambda _: None)
    commands = []
    monkeypatch.setattr(background.subprocess, "Popen", lambda command, **_: commands.append(command))
    BackgroundRebuild(bundle, sparse_run.path, None, original=Path("given"))
    monkeypatch.setattr(sys, "argv", commands[0][2:])
    monkeypatch.setattr(gc, "set_threshold", lambda _: None)
    background.main()
    (line,) = json.loads(capsys.readouterr().out)["differences"]
    assert line == "the run cannot be exported again: given is bad"


def test_a_run_that_cannot_be_opened_is_left_to_the_caller(bundle, tmp_path):
    with BackgroundRebuild(bundle, tmp_path, None) as rebuild:
        assert rebuild.result() is None


def test_leaving_early_ends_the_process(bundle, sparse_run):
    with BackgroundRebuild(bundle, sparse_run.path, None) as rebuild:
        assert rebuild.running
    assert not rebuild.running


def test_the_process_ends_with_a_parent_that_is_killed(tmp_path, monkeypatch):
    stopped = "import time, robust_edge.run.directory as runs; runs.open_run = lambda *_, **__: time.sleep(600); "
    monkeypatch.setattr(background, "CODE", background.CODE.replace("from {module}", stopped + "from {module}"))

    def act():
        rebuild = BackgroundRebuild(tmp_path, tmp_path, None)
        assert rebuild.running
        (tmp_path / "writing").write_text(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text())
        (tmp_path / "writing").rename(tmp_path / "child")
        time.sleep(60)

    parent = forked(act, errors=tmp_path / "errors")
    while not (tmp_path / "child").exists():
        time.sleep(0.01)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    child, end = int((tmp_path / "child").read_text()), time.monotonic() + 60
    while running(child) and time.monotonic() < end:
        time.sleep(0.01)
    assert not running(child)
