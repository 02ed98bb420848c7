"""Repeated verdicts on one artifact are listed in the verdict's record and in the table."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest
from click.testing import CliRunner

from robust_edge_runtimes.cli.main import main
from robust_edge_runtimes.modes.settings import ModeSettings
from robust_edge_runtimes.modes.table import DEVICE_MODES
from robust_edge_runtimes.verdict.history import add_to_history, history_file, user_history, with_history
from robust_edge_runtimes.verdict.inspection import inspect_artifact
from robust_edge_runtimes.verdict.judge import judge
from robust_edge_runtimes.verdict.measurement import Budget


@pytest.fixture(autouse=True)
def _user(tmp_path, monkeypatch):
    """A user who has verified nothing yet."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def drawn(verdict, seed):
    """The verdict with another seed."""
    attacks = [dataclasses.replace(mode.attack, seed=seed) for mode in verdict.modes]
    modes = [dataclasses.replace(mode, attack=attack) for mode, attack in zip(verdict.modes, attacks, strict=True)]
    return dataclasses.replace(verdict, modes=tuple(modes))


(replay,) = (mode.measure for mode in DEVICE_MODES if mode.name == "replay")


def test_a_repeated_verdict_is_told_how_the_others_ended(subject_for, tmp_path):
    subject, out = subject_for(), tmp_path / "verify.json"
    verdict = judge(inspect_artifact(subject), [replay(subject, ModeSettings())], Budget())
    assert with_history(verdict, out) == verdict
    add_to_history(verdict, out)
    again = drawn(verdict, 8)
    assert "verified once before (1 undecided)" in with_history(again, out).notes[-1]
    add_to_history(dataclasses.replace(verdict, outcome="pass"), out)
    assert "verified 2 times before (1 pass, 1 undecided)" in with_history(again, out).notes[-1]
    assert with_history(dataclasses.replace(again, artifact_sha256="b" * 64), out).notes == verdict.notes
    lines = [json.loads(line) for line in history_file(out).read_text().splitlines()]
    assert [[attack["seed"] for attack in line["attacks"]] for line in lines] == [[7], [7]]


def test_the_same_draws_again_are_the_same_verdict(subject_for, tmp_path):
    """Also where the command was killed after it had listed its verdict, and then repeated."""
    out, subject = tmp_path / "verify.json", subject_for()
    verdict = judge(inspect_artifact(subject), [replay(subject, ModeSettings())], Budget())
    add_to_history(verdict, out)
    before = [path.read_bytes() for path in (history_file(out), user_history())]
    later = dataclasses.replace(verdict, machine=dataclasses.replace(verdict.machine, utc="2030-01-01T00:00:00+00:00"))
    assert with_history(later, out) == later
    add_to_history(later, out)
    assert [path.read_bytes() for path in (history_file(out), user_history())] == before
    more = dataclasses.replace(verdict.modes[0], images=verdict.modes[0].images + 1)
    assert "once before" in with_history(dataclasses.replace(verdict, modes=(more,)), out).notes[-1]


def test_lines_that_are_no_entries_are_passed_over(subject_for, tmp_path):
    subject, out = subject_for(), tmp_path / "verify.json"
    verdict = judge(inspect_artifact(subject), [replay(subject, ModeSettings())], Budget())
    history_file(out).write_bytes(b'{\n[1]\n\xff\n{"outcome": "pass"}\n')
    assert with_history(verdict, out) == verdict


def test_all_verdicts_of_a_user_are_listed(subject_for, tmp_path, monkeypatch):
    """Also those that are only printed, or written to another file each time; one in both files counts once."""
    verdict = judge(inspect_artifact(subject_for()), [replay(subject_for(), ModeSettings())], Budget())
    add_to_history(verdict, None)
    assert user_history() == tmp_path / "state/robust-edge/verify.history"
    second, third = (drawn(verdict, seed) for seed in (8, 9))
    assert "verified once before (1 undecided), by verify.history" in with_history(second, None).notes[-1]
    assert "verified once before" in with_history(second, tmp_path / "a.json").notes[-1]
    add_to_history(second, tmp_path / "a.json")
    for out, names in (("a.json", "a.json.history and verify.history"), ("b.json", "verify.history")):
        note = with_history(third, tmp_path / out).notes[-1]
        assert f"verified 2 times before (2 undecided), by {names}" in note


def test_a_history_that_came_with_the_verdict_is_added_to_the_users(subject_for, tmp_path, monkeypatch):
    verdict = judge(inspect_artifact(subject_for()), [replay(subject_for(), ModeSettings())], Budget())
    add_to_history(verdict, tmp_path / "a.json")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    add_to_history(dataclasses.replace(verdict, outcome="pass"), None)
    note = with_history(drawn(verdict, 8), tmp_path / "a.json").notes[-1]
    assert "verified 2 times before (1 pass, 1 undecided)" in note


def test_a_user_without_a_folder_for_such_files(subject_for, tmp_path, monkeypatch):
    """As on a device: a file is in its place, or there is no home."""
    verdict = judge(inspect_artifact(subject_for()), [replay(subject_for(), ModeSettings())], Budget())
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    add_to_history(verdict, None)
    assert with_history(verdict, None) == verdict
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as without $HOME and an entry in passwd
    monkeypatch.chdir(tmp_path)
    add_to_history(verdict, None)
    assert user_history() is None
    assert with_history(verdict, None) == verdict
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("written", [True, False], ids=["-o", "printed"])
def test_the_command_says_that_it_was_repeated(written, bundle, forge, linear, tmp_path):
    """In the table and in JSON; another artifact is not a repetition."""
    pytest.importorskip("onnxruntime", reason="the bundle runs on onnxruntime")
    out = ("-o", str(tmp_path / "verify.json")) if written else ()

    def verify(*options, limit=50):
        done = CliRunner().invoke(main, ["verify", str(bundle), "--limit", str(limit), *out, *options])
        assert done.exit_code in (0, 1, 5), done.output
        return done.stdout

    says = "this artifact was verified {} before"
    assert says.format("once") not in " ".join(verify().split())
    assert says.format("once") not in " ".join(verify().split())  # the same images
    assert says.format("once") in " ".join(verify(limit=51).split())
    assert any(says.format("2 times") in note for note in json.loads(verify("--json", limit=52))["notes"])
    if written:
        assert any(
            says.format("2 times") in note for note in json.loads((tmp_path / "verify.json").read_text())["notes"]
        )
    other = type(linear)(np.roll(linear.weight, 1, axis=0), linear.bias)
    (bundle / "model.onnx").write_bytes(other.program().SerializeToString())
    forge(bundle)
    assert "was verified" not in verify()
