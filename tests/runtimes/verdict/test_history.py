"""Repeated verdicts on one artifact are listed in the verdict's record and in the table."""

from __future__ import annotations

import dataclasses
import json

from robust_edge_runtimes.modes.settings import ModeSettings
from robust_edge_runtimes.modes.table import DEVICE_MODES
from robust_edge_runtimes.verdict.history import add_to_history, history_file, with_history
from robust_edge_runtimes.verdict.inspection import inspect_artifact
from robust_edge_runtimes.verdict.judge import judge
from robust_edge_runtimes.verdict.measurement import Budget

(replay,) = (mode.measure for mode in DEVICE_MODES if mode.name == "replay")


def test_a_repeated_verdict_is_told_how_the_others_ended(subject_for, tmp_path):
    subject, out = subject_for(), tmp_path / "verify.json"
    verdict = judge(inspect_artifact(subject), [replay(subject, ModeSettings())], Budget())
    assert with_history(verdict, out) == verdict
    add_to_history(verdict, out)
    assert "verified once before (1 undecided)" in with_history(verdict, out).notes[-1]
    add_to_history(dataclasses.replace(verdict, outcome="pass"), out)
    assert "verified 2 times before (1 pass, 1 undecided)" in with_history(verdict, out).notes[-1]
    assert with_history(dataclasses.replace(verdict, artifact_sha256="b" * 64), out).notes == verdict.notes
    lines = [json.loads(line) for line in history_file(out).read_text().splitlines()]
    assert [line["attacks"] for line in lines] == [["replay seed 7"]] * 2


def test_lines_that_are_no_entries_are_passed_over(subject_for, tmp_path):
    subject, out = subject_for(), tmp_path / "verify.json"
    verdict = judge(inspect_artifact(subject), [replay(subject, ModeSettings())], Budget())
    history_file(out).write_bytes(b'{\n[1]\n\xff\n{"outcome": "pass"}\n')
    assert with_history(verdict, out) == verdict
